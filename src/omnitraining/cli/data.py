"""``omni data``: check a data set on disk, or decode it ahead of training."""

import argparse
import warnings
from pathlib import Path

from omnitraining.cli import command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Check a data set (exit code 1 if it cannot be used), or decode its images."""
    parser = command_parser(
        "data",
        "PATH is a folder with one folder of images per class, or with train, val and test with\n"
        "class folders; a CSV table or JSON list of images; or CUB, Cars, Places, Plantae or\n"
        "mini-ImageNet as they are published. Start with: omni data check PATH",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{check,prepare}")
    check = commands.add_parser(
        "check",
        help="open every image, count classes, find damage and duplicates",
        description="Open every image of a data set and report what is there and what to correct.",
        epilog="The exit code is 0 if the data set can be used, and 1 if not.",
        allow_abbrev=False,
    )
    prepare = commands.add_parser(
        "prepare",
        help="decode all images once, so that training starts at once",
        description="Decode all images of a data set into the cache from which training reads. "
        "Without this command, the first training does so.",
        allow_abbrev=False,
    )
    for each in (check, prepare):
        each.add_argument("path", type=Path, metavar="PATH", help="folder or file of the data set")
    check.add_argument("--name", help="standard data set to compare it with, as cub")
    prepare.add_argument(
        "--size",
        type=int,
        default=84,
        help="side of the network input in pixels (default: 84)",
    )
    prepare.add_argument(
        "--augmentation",
        choices=("closer-look", "pad-crop", "none"),
        default="closer-look",
        help="augmentation of the training; closer-look stores images at 1.15 times the size, the "
        "others at the size (default: closer-look)",
    )
    prepare.add_argument(
        "--aspect",
        choices=("stretch", "crop", "letterbox"),
        default="stretch",
        help="how images become squares, as in training (default: stretch)",
    )
    prepare.add_argument(
        "--cache",
        type=Path,
        help="folder of decoded images (default: $OMNITRAINING_CACHE or ~/.cache/omnitraining); "
        "set that variable for training too",
    )
    prepare.add_argument(
        "--skip-damaged", action="store_true", help="leave out images that cannot be decoded"
    )
    prepare.add_argument(
        "--anew", action="store_true", help="decode all images again, even those in the cache"
    )
    options = parser.parse_args(arguments)
    if not options.path.exists():
        raise InputError(f"there is no data set at {options.path}")
    if options.command == "check":
        return _check(options.path, options.name)
    if options.size < 1:
        raise InputError(f"--size is {options.size}: it must be 1 or more")
    return _prepare(options)


def _check(path: Path, name: str | None) -> int:
    from omnitraining import datasets
    from omnitraining.datasets import checking
    from omnitraining.experiments.display import show

    checking.check_name(name)
    try:
        data_set = datasets.find(path)
    except InputError as error:
        say(f"must be corrected: {error}")
        return 1
    report = checking.check(data_set, name)
    show(checking.table(report))
    for message in report.problems:
        say(f"must be corrected: {message}")
    for message in report.warnings:
        say(f"warning: {message}")
    if report.is_usable:
        say(f"{path} can be used   next: omni data prepare {path}")
    return 0 if report.is_usable else 1


def stored_side(augmentation: str, size: int) -> int:
    """Side in pixels of the stored images for an augmentation.

    Args:
        augmentation: its name.
        size: side of the network input in pixels.
    """
    from omnitraining.tasks.classification.photos import AUGMENTATIONS

    return AUGMENTATIONS[augmentation](size).stored


def _prepare(options: argparse.Namespace) -> int:
    from omnitraining import datasets
    from omnitraining.datasets import image_cache
    from omnitraining.datasets.decoding import Resize
    from omnitraining.tasks.classification.photos import with_split

    side = stored_side(options.augmentation, options.size)
    resize = Resize(options.aspect, center=options.size)
    data_set = datasets.find(options.path)
    for note in data_set.notes:
        say(f"warning: {note}", error=True)
    splits = with_split(data_set).splits
    # Data without a split are used in the parts that `with_split` makes, and not as a whole.
    for split, listing in splits.items():
        if split == "all" and len(splits) > 1:
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            images = image_cache.load_images(
                listing, side, options.cache, options.skip_damaged, options.anew, resize
            ).images
        for warning in caught:
            say(f"warning: {warning.message}", error=True)
        file = image_cache.cache_file(listing, side, options.cache, resize)
        shape = f"{len(images)} images of {side} x {side} pixels"
        say(f"{split}: {shape}, {images.numel() / 1e6:.1f} MB in {file}")
    return 0
