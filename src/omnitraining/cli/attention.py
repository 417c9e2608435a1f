"""``omni attention``: where the flows of models look, as a picture (Figure 11)."""

from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Draw attention maps of the flows of some models."""
    parser = command_parser(
        "attention",
        "Without --images, the maps are of images of the first test task of the first run, and\n"
        "show the evidence for their true class. With --images, they show what contributes to the\n"
        "representation of each image; with --support too, the evidence for the predicted class.",
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="run folders, saved learners, shipped models"
    )
    parser.add_argument("--images", metavar="IMAGE", nargs="+", help="image files or folders")
    parser.add_argument(
        "--support", type=Path, metavar="FOLDER", help="folder of images per class to learn first"
    )
    parser.add_argument(
        "--count", type=int, default=8, help="how many images of the test task (default: 8)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    add_trust(parser)
    options = parser.parse_args(arguments)
    if options.support is not None and options.images is None:
        raise InputError("--support needs --images: the images to explain")
    if options.count < 1:
        raise InputError(f"--count is {options.count}: it must be 1 or more")

    from omnitraining.experiments.figures import attention_grid
    from omnitraining.learner.inputs import class_folders, listed
    from omnitraining.learner.sources import find
    from omnitraining.runs.run import Run

    rows = []
    if options.images is None:
        if not (Path(options.models[0]) / "config.yaml").is_file():
            raise InputError(
                f"{options.models[0]} is not a run folder, and only runs have test tasks: give "
                "--images"
            )
        task = attention_grid.first_task(Run(options.models[0], trust=options.trust), options.count)
        for model in options.models:
            rows += attention_grid.rows_of_task(find(model, options.trust), *task)
    else:
        images = [path for words in options.images for path in listed(words)]
        for model in options.models:
            if options.support is None:
                rows += attention_grid.rows_of_images(find(model, options.trust), images)
            else:
                support = class_folders(options.support)
                rows += attention_grid.rows_of_task(
                    find(model, options.trust), *support, images, []
                )
    say(f"picture: {attention_grid.draw(rows, options.out)}")
    return 0
