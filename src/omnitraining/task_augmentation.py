"""Augmentation of whole tasks of images: of the query set, the support set, or the classes.

[54] R. Ni, M. Goldblum, A. Sharaf, K. Kong, T. Goldstein: "Data Augmentation for Meta-Learning",
ICML 2021, https://arxiv.org/abs/2010.07092
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from omnitraining.batches import Episode, Mixture, joined, to_device
from omnitraining.errors import InputError

ERASED = 0.5  # probability that an image is erased in part
ERASED_AREA = (0.02, 0.4)  # part of the image
ERASED_RATIO = (0.3, 1 / 0.3)  # width by height
TURNS = (0, 0, 0, 1, 2, 3)  # by 90 degrees, of the images of a class


def query_cutmix(episode: Episode, random: torch.Generator) -> Episode:
    """Paste into each query a box of another query of its task (CutMix, Yun et al. 2019).

    The box of a task is the same in all its queries. Its share of the area is drawn from
    Beta(2, 2); the part of the box outside the image is cut off. `Episode.mixture` holds the
    classes of the other queries, and the share that is left of each image.

    Args:
        episode: T tasks of images.
        random: source of all randomness, on the CPU.
    """
    x, labels = episode.query_x, episode.query_y
    tasks, queries, _, height, width = x.shape
    order = to_device(torch.rand(tasks, queries, generator=random).argsort(1), x.device)
    share = torch.rand(tasks, 3, generator=random).median(1).values  # of Beta(2, 2)
    sides = (1 - share).sqrt().unsqueeze(1) * torch.tensor([height, width])
    inside = _boxes(sides.floor(), torch.rand(tasks, 2, generator=random), height, width)
    left = 1 - inside.to(x.dtype).mean((1, 2))
    inside, left = (to_device(part, x.device) for part in (inside, left))
    others = x.gather(1, order[..., None, None, None].expand_as(x))
    mixed = torch.where(inside[:, None, None], others, x)
    return replace(episode, query_x=mixed, mixture=Mixture(labels.gather(1, order), left))


def query_erase(episode: Episode, random: torch.Generator) -> Episode:
    """Erase a part of about half of the queries (Random Erasing, Zhong et al. 2020).

    Args:
        episode: T tasks of images.
        random: source of all randomness, on the CPU.
    """
    return replace(episode, query_x=_erased(episode.query_x, random))


def support_erase(episode: Episode, random: torch.Generator) -> Episode:
    """Erase a part of about half of the support images.

    Args:
        episode: T tasks of images.
        random: source of all randomness, on the CPU.
    """
    return replace(episode, support_x=_erased(episode.support_x, random))


def task_rotate(episode: Episode, random: torch.Generator) -> Episode:
    """Rotate all images of half of the classes by 90, 180 or 270 degrees: these are new classes.

    Args:
        episode: T tasks of square images.
        random: source of all randomness, on the CPU.

    Raises:
        InputError: the images are not square.
    """
    height, width = episode.query_x.shape[-2:]
    if height != width:
        raise InputError(
            f"task-rotate needs square images, and these have {height} x {width} pixels"
        )
    shape = len(episode.query_y), episode.ways
    turns = torch.tensor(TURNS)[torch.randint(len(TURNS), shape, generator=random)]
    turns = to_device(turns, episode.query_y.device)

    def turned(x: Tensor, labels: Tensor) -> Tensor:
        own = turns.gather(1, labels)[..., None, None, None]
        for number in (1, 2, 3):
            x = torch.where(own == number, x.rot90(number, (-2, -1)), x)
        return x

    return replace(
        episode,
        support_x=turned(episode.support_x, episode.support_y),
        query_x=turned(episode.query_x, episode.query_y),
    )


AUGMENTATIONS: Mapping[str, Callable[[Episode, torch.Generator], Episode]] = {
    "query-cutmix": query_cutmix,
    "query-erase": query_erase,
    "support-erase": support_erase,
    "task-rotate": task_rotate,
}
"""By name."""


def in_versions(
    episode: Episode, pool: tuple[str, ...], count: int, random: torch.Generator
) -> Episode:
    """Each task in several versions, each augmented in a way that is drawn from a pool.

    Args:
        episode: T tasks of images.
        pool: names of augmentations, several in a row joined by "+".
        count: V, versions of each task.
        random: source of all randomness, on the CPU.

    Returns:
        V T tasks: the first version of all, then the second, and so on. They are of no known
        classes of training.

    Raises:
        InputError: the inputs are not images.
    """
    if episode.query_x.dim() != 5:
        raise InputError(
            f"tasks are augmented in images [C, H, W], and these inputs are "
            f"{list(episode.query_x.shape[2:])}"
        )
    versions = []
    for _ in range(count):
        whole = torch.ones(len(episode.query_y), device=episode.query_y.device)
        version = replace(episode, mixture=Mixture(episode.query_y, whole), classes=None)
        for name in pool[int(torch.randint(len(pool), (), generator=random))].split("+"):
            version = AUGMENTATIONS[name](version, random)
        versions.append(version)
    return replace(joined(versions), versions=count)


def _boxes(sides: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """Which pixels [B, H, W] are in a box around a point.

    Args:
        sides: heights and widths of the boxes in pixels [B, 2].
        place: middle of each, uniform in [0, 1) [B, 2].
        height: H of the images.
        width: W of the images.
    """
    size = torch.tensor([height, width])
    first = (place * size).floor() - (sides / 2).floor()
    last = first + sides
    rows, columns = torch.arange(height), torch.arange(width)
    vertical = (rows >= first[:, :1]) & (rows < last[:, :1])
    horizontal = (columns >= first[:, 1:]) & (columns < last[:, 1:])
    return vertical.unsqueeze(2) & horizontal.unsqueeze(1)


def _erased(x: Tensor, random: torch.Generator) -> Tensor:
    """Images [T, M, C, H, W]; in some, a box is set to 0, the mean after normalization."""
    (tasks, images), (height, width) = x.shape[:2], x.shape[-2:]
    draws = torch.rand(tasks * images, 5, generator=random)
    smallest, largest = ERASED_AREA
    area = height * width * (smallest + (largest - smallest) * draws[:, 0])
    low, high = torch.tensor(ERASED_RATIO).log()
    ratio = (low + (high - low) * draws[:, 1]).exp()
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 1).round()
    sides = sides.minimum(torch.tensor([height, width]))
    # The whole box is in the image: its first pixel is drawn, not its middle.
    size = torch.tensor([height, width])
    first = (draws[:, 2:4] * (size - sides + 1)).floor()
    inside = _boxes(sides, (first + (sides / 2).floor() + 0.5) / size, height, width)
    inside &= (draws[:, 4] < ERASED)[:, None, None]
    inside = to_device(inside.unflatten(0, (tasks, images)), x.device)
    return x.masked_fill(inside.unsqueeze(2), 0.0)
