"""The results book: what was measured, beside what the paper says, with a verdict per claim."""
