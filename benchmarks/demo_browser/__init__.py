"""The demo, visited in a real browser."""
