"""Adds the generated pages to the site (hooks of MkDocs; see mkdocs.yml)."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from docs.generate import algorithms, experiments, notebooks, places, reference

NO_RUN = re.compile(r"^(```\w+) no-run$", re.MULTILINE)


def generated() -> dict[str, str]:
    """Texts of all generated pages by place on the site."""
    outside = {
        page: places.with_links((places.ROOT / source).read_text(), source, page)
        for source, page in places.MOVED.items()
        if page.partition("/")[0] not in ("index.md", "experiments")
    }
    made = (part.pages() for part in (experiments, notebooks, algorithms, reference))
    return {**outside, **{page: text for pages in made for page, text in pages.items()}}


def on_config(config: Any) -> Any:
    """Lists the generated pages in the sections that mkdocs.yml leaves open for them."""
    found = algorithms.algorithms()
    lists = {
        "Algorithms": [{a.name: a.page} for a in found],
        "Experiments": experiments.menu(),
        "API": [{title: f"api/{page}.md"} for page, (title, _) in reference.GROUPS.items()],
    }
    for section in config.nav:
        for title, pages in section.items():
            if isinstance(pages, list):
                pages += lists.get(title, [])
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages, and the pictures that lie beside the records."""
    from mkdocs.structure.files import File

    for page, text in generated().items():
        files.append(File.generated(config, page, content=text))
    for picture in places.pictures():
        path = str(places.ROOT / picture)
        files.append(File.generated(config, picture, abs_src_path=path))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Redirects links to their targets on the site."""
    if page.file.generated_by is None:
        markdown = places.with_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)
    if page.file.src_uri == "algorithms.md":
        for algorithm in algorithms.algorithms():
            name = f"| `{algorithm.name}`"
            markdown = markdown.replace(name, f"| [`{algorithm.name}`]({algorithm.page})")
    lines = [
        line.replace(" ± ", "\u00a0±\u00a0") if line.startswith("|") else line
        for line in NO_RUN.sub(r"\1", markdown).split("\n")
    ]
    return "\n".join(lines)  # no number is broken in two
