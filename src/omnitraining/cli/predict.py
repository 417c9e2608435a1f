"""``omni predict``: labels of images by a learner that was fitted and saved."""

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnitraining.cli import add_trust, command_parser
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
        "Probabilities are calibrated on validation tasks of the run, given that the image is of\n"
        "one of the classes.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="what 'omni adapt' wrote")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image files, folders of them or of class folders, or 'photos/*.jpg'",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print a JSON list")
    forms.add_argument("--csv", action="store_true", help="print comma-separated values")
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining.learner import FewShotClassifier, load

    if not options.file.is_file():
        raise InputError(f"there is no saved learner at {options.file}: 'omni adapt' makes one")
    learner = load(options.file, options.trust)
    if not isinstance(learner, FewShotClassifier) or not hasattr(learner, "predictor_"):
        raise InputError(f"{options.file} has not learned any classes yet: use 'omni adapt' first")
    records = judged(learner, [path for words in options.images for path in found(words)])
    if options.json:
        say_json(records)
    elif options.csv:
        head = ["image", "label", *records[0]["probabilities"]]
        say_csv([head, *(_row(record) for record in records)])
    else:
        from omnitraining.experiments.display import show

        show(table(records))
    return 0


def found(words: str) -> list[Path]:
    """The images that an argument names: a file, those of a folder, or those of a pattern.

    Raises:
        InputError: there is none.
    """
    from omnitraining.learner.inputs import listed

    if Path(words).exists() or not glob.has_magic(words):
        return [Path(path) for path in listed(words)]
    names = sorted(glob.glob(words, recursive=True))
    if not names:
        raise InputError(f"no file is named as {words}")
    return [path for name in names for path in listed(name)]


def judged(learner: "FewShotClassifier", paths: list[Path]) -> list[dict[str, Any]]:
    """For each image its label and probabilities, ready for JSON."""
    probabilities, familiarity = learner.judge(paths)
    labels = learner.decide(probabilities, familiarity)
    classes = [str(name) for name in learner.classes_]
    return [
        {
            "image": str(path),
            "label": None if label is None else str(label),
            "probabilities": dict(zip(classes, map(float, row.round(4)), strict=True)),
            "familiarity": round(float(known), 4),
        }
        for path, label, row, known in zip(paths, labels, probabilities, familiarity, strict=True)
    ]


def _row(record: dict[str, Any]) -> list[object]:
    """An image as CSV has it; ./=1.jpg is the same file as =1.jpg, and no formula."""
    image = record["image"]
    place = f"./{image}" if image.startswith(FORMULA) else image
    return [place, record["label"], *record["probabilities"].values()]


def table(records: list[dict[str, Any]]) -> "Table":
    """Images as rows: the label, its probability, and the next likely one."""
    from rich.table import Table

    made = Table("image", "label", "probability", "next", box=None, pad_edge=False)
    for record in records:
        odds: dict[str, float] = record["probabilities"]
        first, second, *_ = sorted(odds.items(), key=lambda item: -item[1])
        label = UNKNOWN if record["label"] is None else str(record["label"])
        sure = "" if record["label"] is None else f"{first[1]:.1%}"
        made.add_row(str(record["image"]), label, sure, f"{second[0]} {second[1]:.1%}")
    return made
