"""Omni-Training: one network, three flows, trained by pre-training and meta-training at once."""
