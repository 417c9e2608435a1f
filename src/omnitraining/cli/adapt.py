"""``omni adapt``: learn new classes from a folder of images per class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnitraining.cli import (
    add_backbone,
    add_device,
    add_trust,
    backbone_options,
    command_parser,
)
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Fit a learner and write it to a file."""
    parser = command_parser(
        "adapt",
        "SUPPORT holds one folder per class with a few images in it, of any size and kind, as\n"
        "  photos/cat/1.jpg  photos/cat/2.png  photos/dog/a.webp\n"
        "Then label other images: omni predict FILE IMAGE ...",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        default="photos",
        help="run folder, saved learner, shipped model (photos, or glyphs for characters), or a "
        "pretrained backbone, as timm/vit_small_patch14_dinov2.lvd142m (default: photos)",
    )
    parser.add_argument("support", metavar="SUPPORT", type=Path, help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--flow",
        help="pre, joint, meta or ensemble, the mean of all; one predicts faster (default: the "
        "ensemble that the run was evaluated with)",
    )
    parser.add_argument(
        "--accept-rate",
        type=float,
        metavar="SHARE",
        help="label images unlike all classes 'none of these'; this share of the images of known "
        "classes is accepted, as 0.95 (default: accept all images)",
    )
    parser.add_argument(
        "--reject", type=float, metavar="SHARE", help="former name of --accept-rate"
    )
    parser.add_argument(
        "--no-weights",
        action="store_true",
        help="write the name and the SHA-256 of a pretrained backbone's weights in place of them",
    )
    add_device(parser)
    add_backbone(parser)
    add_trust(parser)
    options = parser.parse_intermixed_args(arguments)

    from omnitraining.learner import FewShotClassifier
    from omnitraining.learner.sources import MODELS, find

    support = options.support
    if not support.exists() and (MODELS / support.name).is_dir() and support.name == str(support):
        raise InputError(
            f"SUPPORT is missing: omni adapt {support} FOLDER, with a folder per class"
        )

    learner = FewShotClassifier(
        find(options.run, options.trust, backbone_options(options), options.device),
        options.flow,
        accept_rate=options.accept_rate,
        reject=options.reject,
    )
    learner.fit(options.support)
    learner.save(options.out, weights=not options.no_weights)
    images = sum(learner.counts_.values())
    say(f"{images} images of {len(learner.classes_)} classes: {', '.join(learner.classes_)}")
    if frozen := find(learner.model).frozen:
        say(f"backbone: {options.run}, {frozen.words}")
    else:
        say(f"images become {find(learner.model).inputs}")
    say(f"images per class: {shots_in_words(learner.counts_)}")
    say(learner.fit_report_.in_words())
    say(f"learner: {options.out}   next: omni predict {options.out} IMAGE ...")
    return 0


def shots_in_words(counts: Mapping[Any, int]) -> str:
    """One number, or the number of each class where they differ.

    Args:
        counts: images by class.
    """
    numbers = {*counts.values()}
    if len(numbers) == 1:
        return str(numbers.pop())
    return ", ".join(f"{name} {count}" for name, count in counts.items())
