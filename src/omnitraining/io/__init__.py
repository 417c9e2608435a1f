"""Files that are never half written, and the terminal."""
