"""Run folders: configuration, checkpoints, metrics and results of a training."""
