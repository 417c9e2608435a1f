"""Examples in docstrings run, every public class has one, and citations name their source."""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import omnitraining

PACKAGE = Path(omnitraining.__file__).parent
OPTIONAL = {"gradio", "gymnasium", "huggingface_hub", "mujoco", "onnx", "optuna", "submitit"}

CITATIONS = (13, 17, 20, 22, 26, 41, 45, 54, 55, 69, 71, 76, 79, 80)
"""Numbers of cited papers in the paper; others in brackets are shapes."""


def sources() -> dict[str, str]:
    """Text of every module by name, without importing it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path.read_text()
    return found


SOURCES = sources()


@pytest.mark.parametrize("module", [name for name, text in SOURCES.items() if ">>> " in text])
def test_examples_run(module: str) -> None:
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
    runner, output = doctest.DocTestRunner(verbose=False), list[str]()
    for example in doctest.DocTestFinder().find(imported, module):
        runner.run(example, out=output.append)
    assert not runner.failures, "".join(output)


@pytest.mark.parametrize("name", omnitraining.__all__)
def test_public_classes_have_an_example(name: str) -> None:
    value = getattr(omnitraining, name)
    if inspect.isclass(value) and not issubclass(value, Exception):
        assert ">>> " in (value.__doc__ or "")


def docstrings(text: str) -> str:
    """All docstrings of a module, its attributes included."""
    constants = [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    return "\n\n".join(value for value in constants if isinstance(value, str))


@pytest.mark.parametrize("module", SOURCES)
def test_citations_name_their_source(module: str) -> None:
    text = docstrings(SOURCES[module])
    cited = {key for key in CITATIONS if f"[{key}]" in text}
    sourced = {key for key in cited if re.search(rf"\[{key}\] [A-Z][^[]*(https://|arXiv)", text)}
    assert cited == sourced
