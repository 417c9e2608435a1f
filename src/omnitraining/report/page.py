"""The book as one HTML file with its pictures inside: it can be sent, and read offline."""

import html
import re
from base64 import b64encode
from pathlib import Path

from markdown_it import MarkdownIt

from omnitraining.report import book
from omnitraining.report.book import Chapter

STYLE = Path(__file__).parent / "page.css"


def page(chapters: list[Chapter], folder: Path) -> str:
    """The whole file.

    Args:
        chapters: of the book.
        folder: where the pictures lie.
    """
    text = book.markdown(chapters).replace(" ± ", "\u00a0±\u00a0")  # no number is broken in two
    body = MarkdownIt("commonmark").enable("table").render(text)
    body = re.sub(r'<img src="([^"]+)" alt="([^"]*)"\s*/?>', lambda m: _inlined(m, folder), body)
    body = re.sub(r"<h2>([^<]+)</h2>", r'<h2 id="\1">\1</h2>', body)
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    for sign, name in (("✓", "holds"), ("✗", "fails"), ("–", "open")):
        body = re.sub(rf"<td>({sign} [^<]*)</td>", rf'<td class="{name}">\1</td>', body)
    links = "".join(
        f'<li><a href="#{c.name}">{html.escape(c.name)}</a>{"" if c.is_measured else " –"}</li>'
        for c in chapters
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


def _inlined(match: re.Match[str], folder: Path) -> str:
    """A picture as data; in words where it is missing."""
    if not (folder / match[1]).is_file():
        return f"<em>({match[2]}: there is no {match[1]} beside the records)</em>"
    data = b64encode((folder / match[1]).read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{match[2]}" loading="lazy">'
