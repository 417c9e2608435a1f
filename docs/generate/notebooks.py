"""A page per notebook: its texts, and its code without outputs."""

import json
from pathlib import Path

from docs.generate.places import ROOT, with_links

FOLDER = ROOT / "docs" / "notebooks"


def pages() -> dict[str, str]:
    """Texts by place on the site."""
    return {f"notebooks/{path.stem}.md": _page(path) for path in sorted(FOLDER.glob("*.ipynb"))}


def _page(path: Path) -> str:
    """The cells of a notebook: of text as they are, of code as blocks."""
    page, parts = f"notebooks/{path.stem}.md", []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(with_links(source, f"docs/notebooks/{path.name}", page))
        else:
            parts.append(f"```python\n{source}\n```")
    parts.insert(1, f"[Download it as a notebook of Jupyter]({path.name})")
    return "\n\n".join(parts) + "\n"
