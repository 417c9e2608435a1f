"""The built-in benchmarks: unseen Latin characters, unseen scripts, and handwritten digits."""

import json
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import torch

from omnitraining.datasets import digits, glyphs
from omnitraining.datasets.images import LabeledImages, concatenate
from omnitraining.errors import InputError
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig

SCRIPTS = ("greek", "cyrillic", "georgian", "armenian")
SPLIT = ("latin", "scripts")  # domains that have training, validation and test classes
TRAINING = ("latin", *SCRIPTS, "scripts")
BENCHMARKS = ("latin", *SCRIPTS, "digits")


class Glyphs(Classification):
    """Training on characters; tests on unseen characters, other scripts and handwritten digits.

    ``"latin"`` has disjoint training, validation and test classes, and so has ``"scripts"``, the
    four other scripts together, split by the rule of CUB. Each of those scripts alone has no split:
    all its classes are for training or for test. Training classes that look like a class of a
    benchmark are left out (``tools/glyph_classes.py``).

    Args:
        protocol: sizes of episodes and mini-batches.
        benchmarks: test domains: ``"latin"`` (cross-task), ``"greek"``, ``"cyrillic"``,
            ``"georgian"``, ``"armenian"`` and ``"digits"`` (cross-domain); or ``"scripts"``.
        size: side of the images in pixels.
        instances: images per class.
        training_classes: number of classes of each training domain; all if not given.
        seed: seed of the rendering.
        training: training domains, with the names of benchmarks but ``"digits"``. The validation
            classes are from ``"scripts"`` if it is the only one, and Latin otherwise.

    Raises:
        InputError: a domain is unknown, domains share classes, or there are too few images for the
            episodes.

    Example:
        >>> problem = Glyphs()  # doctest: +SKIP
        >>> problem.episode(0, torch.Generator().manual_seed(0)).query_x.shape  # doctest: +SKIP
        torch.Size([1, 80, 1, 32, 32])
    """

    def __init__(
        self,
        protocol: EpisodeConfig = EpisodeConfig(),  # noqa: B008 (frozen)
        benchmarks: tuple[str, ...] = BENCHMARKS,
        size: int = 32,
        instances: int = 30,
        training_classes: int | None = None,
        seed: int = 0,
        training: tuple[str, ...] = ("latin",),
    ) -> None:
        """Render the images, or read them from the cache."""
        _check(training, benchmarks)
        if size < 16:
            raise InputError(f"problem.size is {size}: images must be 16 pixels or larger")
        if seed < 0:
            raise InputError(f"problem.seed is {seed}: it must be 0 or more")
        most = max(*protocol.test_shots, protocol.shots) + protocol.queries
        if instances < most:
            raise InputError(
                f"problem.instances is {instances}, fewer than the {most} images that a class "
                "needs for its shots and queries"
            )
        load = partial(_load, size=size, instances=instances, seed=seed)
        tests = {name: load(name, "test") for name in benchmarks}
        unseen = {character for images in tests.values() for character in images.classes}
        domains = [_without_similar(load(name, "train"), unseen) for name in training]
        if training_classes is not None:
            domains = [
                _select_classes(images, images.classes[:training_classes]) for images in domains
            ]
        validation = load("scripts" if training == ("scripts",) else "latin", "validation")
        super().__init__(domains, validation, tests, protocol)


def similar_characters() -> dict[str, set[str]]:
    """Characters of other domains that look alike, by character, from ``glyph_twins.json``."""
    text = Path(glyphs.__file__).with_name("glyph_twins.json").read_text("utf-8")
    alike: dict[str, set[str]] = {}
    for one, other in json.loads(text)["twins"]:
        alike.setdefault(one, set()).add(other)
        alike.setdefault(other, set()).add(one)
    return alike


def _check(training: tuple[str, ...], benchmarks: tuple[str, ...]) -> None:
    """Refuse unknown domains, and domains that share classes."""
    if not training:
        raise InputError(f"problem.training is empty: choose from {', '.join(TRAINING)}")
    for kind, names, known in (
        ("benchmark", benchmarks, (*BENCHMARKS, "scripts")),
        ("training domain", training, TRAINING),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"{kind} {name!r} is not one of {', '.join(known)}")
    for one, other in combinations(training, 2):
        if _overlap(one, other):
            raise InputError(f"training domains {one!r} and {other!r} share classes: choose one")
    for seen in training:
        for name in benchmarks:
            if _overlap(seen, name) and not (seen == name and seen in SPLIT):
                raise InputError(
                    f"benchmark {name!r} has classes of training domain {seen!r}: replace one"
                )


def _overlap(one: str, other: str) -> bool:
    """Whether two domains have a script in common."""
    scripts = [set(SCRIPTS) if name == "scripts" else {name} for name in (one, other)]
    return bool(scripts[0] & scripts[1])


def _load(domain: str, split: str, *, size: int, instances: int, seed: int) -> LabeledImages:
    """Images of a split of a domain; of all its classes if it has no splits."""
    load = partial(glyphs.load, size=size, instances=instances, seed=seed)
    if domain == "digits":
        return digits.load(size=size)
    if domain == "latin":
        return load("latin", split)
    if domain == "scripts":
        return _split([load(script, "test") for script in SCRIPTS], split)
    return load(domain, "test")


def _split(parts: list[LabeledImages], split: str) -> LabeledImages:
    """A split of several scripts as one domain; of classes that look alike only the first is kept.

    The split follows CUB in CloserLook: classes 0, 2, 4, ... are for training, 1, 5, 9, ... for
    validation, 3, 7, 11, ... for test (Chen et al., "A Closer Look at Few-shot Classification",
    2019). So letters that differ only by a mark can be in different splits, as related birds in
    CUB.
    """
    alike, classes = similar_characters(), list[str]()
    for part in parts:
        classes += [c for c in part.classes if not alike.get(c, set()) & {*classes}]
    start, step = {"train": (0, 2), "validation": (1, 4), "test": (3, 4)}[split]
    return _select_classes(concatenate(parts, f"glyphs-scripts-{split}"), classes[start::step])


def _without_similar(images: LabeledImages, unseen: Collection[str]) -> LabeledImages:
    """Images of the classes that look like no unseen class."""
    alike = similar_characters()
    return _select_classes(
        images, [c for c in images.classes if not alike.get(c, set()) & {*unseen}]
    )


def _select_classes(images: LabeledImages, classes: Collection[str]) -> LabeledImages:
    """Images of some classes, labeled by their positions among these."""
    number = {name: label for label, name in enumerate(classes)}
    renumber = torch.tensor([number.get(name, -1) for name in images.classes])
    labels = renumber[images.labels]
    kept = labels >= 0
    return replace(images, images=images.images[kept], labels=labels[kept], classes=tuple(classes))
