"""``omni report``: the results book, from the records in a folder."""

import shutil
from pathlib import Path

from omnitraining.cli import command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Write the book as one HTML file, or as pages of Markdown with their pictures."""
    parser = command_parser(
        "report",
        "Records are what 'omni reproduce' and 'omni sweep' write. FILE.html holds everything,\n"
        "pictures too. A folder gets a page of Markdown per experiment, and the pictures.",
    )
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="RESULTS_DIR",
        help="folder of records and pictures (default: results)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE_OR_DIR", help="FILE.html, or a folder"
    )
    options = parser.parse_args(arguments)
    is_page = options.out.suffix.lower() == ".html"
    if options.out.is_dir() if is_page else options.out.is_file():
        raise InputError(f"--out is {options.out}: it must be a FILE.html or a folder")

    from omnitraining.experiments.report import book, page

    chapters = book.chapters(options.results)
    if is_page:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page.page(chapters, options.results), "utf-8")
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, text in book.pages(chapters).items():
            (options.out / name).write_text(text, "utf-8")
        for picture in book.pictures(chapters, options.results):
            shutil.copy(options.results / picture, options.out / picture)
    measured = sum(chapter.is_measured for chapter in chapters)
    say(f"book: {options.out}   {measured} of {len(chapters)} experiments have records")
    return 0
