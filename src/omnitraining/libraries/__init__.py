"""Backbones of timm, torchvision and transformers by name, and modules of the user's own."""

from omnitraining.libraries.backbone import LibraryBackbone, OwnBackbone, PooledBackbone

__all__ = ["LibraryBackbone", "OwnBackbone", "PooledBackbone"]
