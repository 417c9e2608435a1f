"""Configurations: typed, and read safely when they are from an untrusted source."""
