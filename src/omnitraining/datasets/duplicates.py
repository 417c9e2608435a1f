"""Images that two sets have in common."""

import hashlib

from torch import Tensor


def shared_images(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    """Positions of equal images in two sets of decoded images, each of the second only once.

    The middle rows are compared first, and whole images only where these are equal: sets may be
    mapped from files larger than memory.

    Args:
        first: uint8 [M, C, S, S].
        second: uint8 [N, C, S, S].

    Returns:
        Pairs (position in the first set, position in the second set).
    """
    rows = [_rows(images) for images in (first, second)]
    common = set(rows[0]) & set(rows[1])
    known = {_digest(first[i]): i for i, row in enumerate(rows[0]) if row in common}
    digests = ((j, _digest(second[j])) for j, row in enumerate(rows[1]) if row in common)
    return [(known[digest], j) for j, digest in digests if digest in known]


def _rows(images: Tensor) -> list[bytes]:
    return [row.tobytes() for row in images[:, :, images.shape[2] // 2].numpy()]


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()
