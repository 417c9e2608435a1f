"""A bar chart as SVG, of the same text on every machine, so that a test can compare it."""

from collections.abc import Mapping, Sequence
from html import escape

COLORS = "#9aa3ad", "#3c6fb0"
LEFT, WIDTH, BAR, GAP, HEAD = 150, 330, 13, 12, 58


def bars(title: str, names: Sequence[str], groups: Mapping[str, Sequence[float]]) -> str:
    """A group of horizontal bars per row, from 0 to 100 %.

    Args:
        title: above the bars.
        names: of the bars of a group, as many as there are ``COLORS`` or fewer.
        groups: values in percent by the name of the row.
    """
    high = HEAD + len(groups) * (len(names) * BAR + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {high}" '
        f'role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, -apple-system, \'Segoe UI\', Roboto, sans-serif" fill="#24292f">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" rx="8" fill="#fff"/>',
        f'<text x="12" y="22" font-size="13" font-weight="600">{escape(title)}</text>',
    ]
    for number, (name, color) in enumerate(zip(names, COLORS, strict=False)):
        x = 12 + 200 * number
        lines += [
            f'<rect x="{x}" y="34" width="11" height="11" fill="{color}"/>',
            f'<text x="{x + 17}" y="44" font-size="12">{escape(name)}</text>',
        ]
    y = HEAD
    for row, values in groups.items():
        middle = y + len(values) * BAR / 2 + 4
        lines.append(
            f'<text x="{LEFT - 8}" y="{middle:g}" font-size="12" text-anchor="end">'
            f"{escape(row)}</text>"
        )
        for value, color in zip(values, COLORS, strict=False):
            wide = value / 100 * WIDTH
            lines += [
                f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR - 2}" fill="{color}"/>',
                f'<text x="{LEFT + wide + 5:.1f}" y="{y + 10}" font-size="11">{value:.0f} %</text>',
            ]
            y += BAR
        y += GAP
    return "\n".join([*lines, "</svg>\n"])
