"""The API reference: every module of the library on one page, and the public names on the first."""

import ast
from functools import cache, partial
from importlib import import_module

from docs.generate.algorithms import algorithms
from docs.generate.places import PACKAGE
from omnitraining.experiments.tables import markdown

GROUPS = {
    "learners": ("Learners", "learner"),
    "networks": ("Networks and losses", "omninet conversion features model losses precision "
                 "teacher network heads views"),
    "algorithms": ("Algorithms: base classes and parts",
                   "algorithm pretraining metatraining adaptation policies "
                   "task_augmentation curriculum"),
    "backbones": ("Backbones", "backbones libraries"),
    "problems": ("Problems", "tasks batches"),
    "data": ("Images on disk", "datasets"),
    "reinforcement": ("Reinforcement learning", "tasks.reinforcement"),
    "training": ("Training and evaluation",
                 "training.loop training.options training.stepper training distributed evaluation "
                 "runs config io errors limits threads optimizers memory lazy"),
    "reproduction": ("Experiments and records", "experiments"),
    "export": ("Export, hub, analysis", "learner.export learner.hub analysis"),
    "programs": ("Programs", "cli demo"),
}  # fmt: skip
"""Pages: title, and modules or packages. The longest name that fits a module decides its page."""


@cache
def modules() -> dict[str, str]:
    """All modules that define functions or classes, each with its page."""
    own = {algorithm.module: algorithm.page for algorithm in algorithms()}
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        named = any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in tree.body)
        if path == PACKAGE / "__init__.py" or not named:
            continue  # packages that only pass on the names of their modules
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[f"omnitraining.{name}"] = own.get(f"omnitraining.{name}") or _page_of(name)
    return found


def _page_of(module: str) -> str:
    fits = {
        prefix: page
        for page, (_, prefixes) in GROUPS.items()
        for prefix in prefixes.split()
        if f"{module}.".startswith(f"{prefix}.")
    }
    if not fits:
        raise KeyError(f"omnitraining.{module} has no page in the reference: add it to GROUPS")
    return f"api/{fits[max(fits, key=len)]}.md"


@cache
def public_names() -> dict[str, str]:
    """The names of ``omnitraining.__all__``, each with the module that holds it."""
    package = import_module("omnitraining")
    holders = {}
    for name in package.__all__:
        place = package._MODULES[name]
        holders[name] = next(m for m in modules() if f"{m}.".startswith(f"{place}.")
                             and _defines(m, name))  # fmt: skip
    return holders


def _defines(module: str, name: str) -> bool:
    return name in _docstrings(module)


@cache
def _docstrings(module: str) -> dict[str, str]:
    """Docstrings by name, of the classes and functions of a module."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


def summary(name: str) -> str:
    """First line of the docstring of a public name; empty without one."""
    return _docstrings(public_names()[name])[name].partition("\n")[0]


def pages() -> dict[str, str]:
    """Texts by place on the site."""
    places = modules()
    found = {"api/index.md": _index(places), "cli.md": _commands()}
    for page, (title, prefixes) in GROUPS.items():
        inside = [module for module, place in places.items() if place == f"api/{page}.md"]
        inside.sort(key=partial(_rank, order=prefixes.split()))
        found[f"api/{page}.md"] = "\n".join(
            [f"# {title}\n", *(f"::: {module}\n" for module in inside)]
        )
    return found


def _rank(module: str, order: list[str]) -> int:
    """Where the module stands in the order of its page."""
    name = module.removeprefix("omnitraining.") + "."
    return order.index(max((p for p in order if name.startswith(f"{p}.")), key=len))


def _index(places: dict[str, str]) -> str:
    holders = public_names()
    body = [
        [f"[`{name}`](../{places[module]}#{module}.{name})", summary(name).replace("|", "\\|")]
        for name, module in sorted(holders.items(), key=lambda item: item[0].lower())
    ]
    return (
        "# API reference\n\nThese names are imported from `omnitraining` itself. The pages of this "
        "section hold every module, with shapes, units and errors; algorithms have pages of their "
        "own.\n\n" + markdown(["name", "what it is"], body)
    )


def _commands() -> str:
    """The help text of every command."""
    import io
    import os
    from contextlib import redirect_stdout

    cli = import_module("omnitraining.cli")
    os.environ.update(COLUMNS="84", NO_COLOR="1")
    lines = [
        "# Command line\n",
        "Wrong input ends in one line that names what is allowed, and exit code 2.\n",
    ]
    for command, what in cli.COMMANDS.items():
        out = io.StringIO()
        try:
            with redirect_stdout(out):
                cli.main([command, "--help"])
        except SystemExit:
            pass  # as argparse leaves after its help
        title = f"{what[0].upper()}{what[1:]}."
        lines += [f"## omni {command}\n", f"{title}\n", "```text", out.getvalue().strip(), "```\n"]
    return "\n".join(lines)
