"""Atomic writes and locks of files, text for the terminal, and work in threads."""
