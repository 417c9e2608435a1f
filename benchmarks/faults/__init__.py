"""Runs that are killed, resumed, and compared bit for bit with runs that were not."""
