"""Policies and how they are optimized in reinforcement learning."""
