"""The part of a page that is drawn from records stands between two markers."""

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def filled(page: str, parts: list[str]) -> str:
    """A page with other parts between its markers.

    Args:
        page: Markdown with both markers.
        parts: Markdown, each ending in a line break.
    """
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n" + "\n".join(parts) + f"{END}{rest.partition(END)[2]}"


def outside(page: str, instead: str) -> str:
    """A page with words instead of what stands between its markers.

    Args:
        page: Markdown with both markers.
        instead: Markdown.
    """
    before, _, rest = page.partition(BEGIN)
    return before + instead + rest.partition(END)[2]
