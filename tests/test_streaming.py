"""Pages of a mapped file are dropped, as ``benchmarks.streaming`` has it, and read again."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.streaming import evict_pages
from omnitraining.datasets.image_cache import _mapped


@pytest.mark.skipif(sys.platform != "linux", reason="it calls the C library of Linux")
def test_dropped_pages_are_read_again(tmp_path: Path) -> None:
    path, random = tmp_path / "a.uint8", torch.Generator().manual_seed(0)
    wanted = torch.randint(256, (50, 3, 32, 32), dtype=torch.uint8, generator=random)
    path.write_bytes(wanted.numpy().tobytes())
    images = _mapped(path, (50, 3, 32, 32))
    assert (images == wanted).all()
    assert 0 <= evict_pages(images, path) <= 1  # a disk in memory keeps its pages
    assert (images == wanted).all()
