"""``omni report``: records and pictures as pages of Markdown, with a verdict per claim."""

import shutil
from pathlib import Path

from omnitraining.cli import command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Write the report as pages of Markdown with their pictures."""
    parser = command_parser(
        "report",
        "'omni reproduce' and 'omni sweep' write the records. The folder of --out gets a page of\n"
        "Markdown per experiment, and the pictures.",
    )
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="RESULTS_DIR",
        help="folder of records and pictures (default: results)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or existing")
    options = parser.parse_args(arguments)
    if options.out.is_file() or options.out.suffix.lower() in (".html", ".md", ".pdf"):
        raise InputError(f"--out is {options.out}: it must be a folder, for pages of Markdown")

    from omnitraining.experiments.report import report

    sections = report.report(options.results)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in report.pages(sections).items():
        (options.out / name).write_text(text, "utf-8")
    for picture in report.pictures(sections, options.results):
        shutil.copy(options.results / picture, options.out / picture)
    measured = sum(section.is_measured for section in sections)
    say(f"report: {options.out / 'index.md'}   {measured} of {len(sections)} experiments measured")
    return 0
