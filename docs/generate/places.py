"""Where things are: in the repository, and on the site."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "omnitraining"

MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/README.md": "experiments/decisions.md",
    "src/omnitraining/models/glyphs/card.md": "models/glyphs.md",
    "src/omnitraining/models/photos/card.md": "models/photos.md",
}
"""Pages of the repository outside docs, by their place on the site."""

LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def with_links(markdown: str, source: str, page: str) -> str:
    """Text whose relative links, written for a file of the repository, lead to pages of the site.

    Args:
        markdown: text.
        source: the file, relative to the root of the repository.
        page: the page, relative to the root of the site.
    """

    def led(match: re.Match[str]) -> str:
        begin, target, anchor, end = match.groups()
        if ":" in target:
            return match.group()
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = MOVED.get(found, found.removeprefix("docs/"))
        if place.endswith(".ipynb"):  # a notebook has a page
            place = place.removesuffix(".ipynb") + ".md"
        return f"{begin}{relative(place, page)}{anchor or ''}{end}"

    return LINK.sub(led, markdown)


def relative(place: str, page: str) -> str:
    """The way from a page of the site to a place on it."""
    return posixpath.relpath(place, posixpath.dirname(page))


def pictures() -> list[str]:
    """Pictures outside docs that pages show, relative to the root of the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "results").glob("*.png"))
