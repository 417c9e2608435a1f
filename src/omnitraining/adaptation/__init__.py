"""Gradient adaptation of whole networks to tasks: the inner loop of MAML."""
