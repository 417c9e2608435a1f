"""The digits of scikit-learn, as dark ink on light paper."""

import pytest
import torch
from sklearn.datasets import load_digits

from omnitraining.datasets import digits


def test_every_digit_keeps_its_label() -> None:
    data = digits.load()
    assert data.images.shape == (1797, 1, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.classes == tuple("0123456789")
    assert data.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_pictures_are_the_scans() -> None:
    # Averaged back to 8x8, the picture inside its margin is the scan again, up to smoothing.
    inside = digits.load(size=40).images[:, :, 4:36, 4:36].float() / 255
    ink = (0.8 - torch.nn.functional.avg_pool2d(inside, 4)[:, 0]) / 0.5
    scans = torch.from_numpy(load_digits().images).float() / 16
    assert (ink - scans).abs().mean() < 0.05
    assert torch.corrcoef(torch.stack([ink.flatten(), scans.flatten()]))[0, 1] > 0.98


def test_margin_is_paper_and_ink_is_dark() -> None:
    images = digits.load().images
    assert (images[:, :, :3] == 204).all() and (images[:, :, -3:] == 204).all()
    assert (images.flatten(1).min(1).values < 100).all()


def test_same_each_time_and_any_size() -> None:
    assert digits.load().fingerprint == digits.load().fingerprint
    assert digits.load(size=28).images.shape[-2:] == (28, 28)
    with pytest.raises(ValueError, match="size must be >= 8"):
        digits.load(size=7)
