"""Omni-Training: one network with three flows, trained by pre-training and meta-training at once."""
