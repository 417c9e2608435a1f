"""The report of results: measured numbers beside published ones, with a verdict per claim."""
