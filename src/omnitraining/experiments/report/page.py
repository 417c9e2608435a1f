"""The book as one HTML file with its pictures inside: it can be sent, and read offline."""

import html
import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from omnitraining.experiments.report import book
from omnitraining.experiments.report.book import Chapter

STYLE = Path(__file__).parent / "page.css"


def page(chapters: list[Chapter], folder: Path) -> str:
    """The whole file.

    Args:
        chapters: of the book.
        folder: where the pictures lie.
    """
    text = book.markdown(chapters).replace(" ± ", "\u00a0±\u00a0")  # no number is broken in two
    # Records and notes may be a stranger's: their HTML is text.
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
        return _inlined(folder, tokens[index])

    renderer.add_render_rule("image", image)
    body = renderer.render(text)
    body = re.sub(r"<h2>([^<]+)</h2>", r'<h2 id="\1">\1</h2>', body)
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    for sign, name in (("✓", "holds"), ("✗", "fails"), ("–", "open")):
        body = re.sub(rf"<td>({sign} [^<]*)</td>", rf'<td class="{name}">\1</td>', body)
    links = "".join(
        f'<li><a href="#{name}">{name}</a>{"" if is_measured else " –"}</li>'
        for name, is_measured in ((html.escape(c.name), c.is_measured) for c in chapters)
    )
    contents = f'<li><a href="#Verdicts">Verdicts</a></li>{links}'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Omni-Training: results book</title>\n<style>\n{STYLE.read_text('utf-8')}</style>\n"
        "</head>\n<body>\n"
        f"<nav><details open><summary>Contents</summary><ul>{contents}</ul></details></nav>\n"
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _inlined(folder: Path, image: Token) -> str:
    """A picture as data; in words where it is missing or not of the folder."""
    name, text = unquote(str(image.attrs["src"])), html.escape(image.content)
    if not book.is_picture(folder, name):
        return f"<em>({text}: there is no {html.escape(name)} beside the records)</em>"
    data = b64encode((folder / name).read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{text}" loading="lazy">'
