"""Experiments of several runs: tables, figures, sweeps, tuning, and their records."""
