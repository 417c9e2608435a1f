"""``omni predict``: labels of images by a saved learner."""

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnitraining.cli import add_backbone, add_device, add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import FORMULA, say_csv, say_json

if TYPE_CHECKING:
    from rich.table import Table

    from omnitraining.learner import FewShotClassifier

UNKNOWN = "none of these"


def main(arguments: list[str]) -> int:
    """Print the label and the probabilities of each image."""
    parser = command_parser(
        "predict",
        "Probabilities are calibrated on validation tasks of the run; with a pretrained\n"
        "backbone, on the images that 'omni adapt' was given.\n"
        "They hold if the image is of one of the classes.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="file that 'omni adapt' wrote")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image files, folders of them or of class folders, or 'photos/*.jpg'",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print a JSON list")
    forms.add_argument("--csv", action="store_true", help="print comma-separated values")
    add_device(parser)
    add_backbone(parser, whole=False)
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining.learner import FewShotClassifier, load

    if not options.file.is_file():
        raise InputError(f"there is no saved learner at {options.file}: 'omni adapt' makes one")
    given = {} if options.weights is None else {"weights": options.weights}
    learner = load(options.file, options.trust, device=options.device, **given)
    if not isinstance(learner, FewShotClassifier) or not hasattr(learner, "predictor_"):
        raise InputError(f"{options.file} has not learned any classes yet: use 'omni adapt' first")
    paths = [path for pattern in options.images for path in image_paths(pattern)]
    records = predictions(learner, paths)
    if options.json:
        say_json(records)
    elif options.csv:
        head = ["image", "label", *records[0]["probabilities"]]
        say_csv([head, *(_row(record) for record in records)])
    else:
        from omnitraining.experiments.display import show

        show(table(records))
    return 0


def image_paths(pattern: str) -> list[Path]:
    """The image files of an argument: a file, a folder or a pattern.

    Raises:
        InputError: there is no such file.
    """
    from omnitraining.learner.inputs import listed

    if Path(pattern).exists() or not glob.has_magic(pattern):
        return [Path(path) for path in listed(pattern)]
    names = sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise InputError(f"no file matches {pattern}")
    return [path for name in names for path in listed(name)]


def predictions(learner: "FewShotClassifier", paths: list[Path]) -> list[dict[str, Any]]:
    """Label, probabilities and similarity of each image, as JSON has them."""
    probabilities, similarity = learner.predict_with_scores(paths)
    labels = learner.to_labels(probabilities, similarity)
    classes = [str(name) for name in learner.classes_]
    return [
        {
            "image": str(path),
            "label": None if label is None else str(label),
            "probabilities": dict(zip(classes, map(float, row.round(4)), strict=True)),
            "similarity": round(float(score), 4),
        }
        for path, label, row, score in zip(paths, labels, probabilities, similarity, strict=True)
    ]


def _row(record: dict[str, Any]) -> list[object]:
    """A row of CSV; =1.jpg is written as ./=1.jpg, which spreadsheets do not run as a formula."""
    image = record["image"]
    path = f"./{image}" if image.startswith(FORMULA) else image
    return [path, record["label"], *record["probabilities"].values()]


def table(records: list[dict[str, Any]]) -> "Table":
    """A row per image: the label, its probability, and the second most likely class."""
    from rich.table import Table

    rows = Table("image", "label", "probability", "next", box=None, pad_edge=False)
    for record in records:
        by_class: dict[str, float] = record["probabilities"]
        first, second, *_ = sorted(by_class.items(), key=lambda item: -item[1])
        label = UNKNOWN if record["label"] is None else str(record["label"])
        confidence = "" if record["label"] is None else f"{first[1]:.1%}"
        rows.add_row(str(record["image"]), label, confidence, f"{second[0]} {second[1]:.1%}")
    return rows
