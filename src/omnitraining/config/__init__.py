"""Configurations: typed, and read safely when they are from somebody else."""
