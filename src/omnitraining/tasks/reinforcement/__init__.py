"""Reinforcement learning: policies that adapt to a new goal in a few gradient steps (paper 6.3)."""
