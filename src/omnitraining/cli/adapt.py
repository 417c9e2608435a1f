"""``omni adapt``: learn new classes from a folder of images per class."""

from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Fit a learner and write it to a file."""
    parser = command_parser(
        "adapt",
        "SUPPORT holds one folder per class with a few images in it, of any size and kind, as\n"
        "  photos/cat/1.jpg  photos/cat/2.png  photos/dog/a.webp\n"
        "Then ask for other images: omni predict FILE IMAGE ...",
    )
    parser.add_argument(
        "run", metavar="RUN", help="run folder, saved learner, or shipped model ('glyphs')"
    )
    parser.add_argument("support", metavar="SUPPORT", type=Path, help="folder of class folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--flow",
        help="pre, joint, meta or ensemble; one flow predicts faster (default: the run's vote)",
    )
    parser.add_argument(
        "--reject",
        type=float,
        metavar="SHARE",
        help="say 'none of these' to images unlike all classes, so that this share of images of "
        "the classes is accepted, as 0.95 (default: never)",
    )
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining.learner import FewShotClassifier
    from omnitraining.learner.sources import find

    learner = FewShotClassifier(find(options.run, options.trust), options.flow, options.reject)
    learner.fit(options.support)
    learner.save(options.out)
    images = sum(learner.counts_.values())
    say(f"{images} images of {len(learner.classes_)} classes: {', '.join(learner.classes_)}")
    say(f"learner: {options.out}   next: omni predict {options.out} IMAGE ...")
    return 0
