"""Importing the library costs next to nothing; every public name is there all the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import omnitraining


def test_the_library_and_the_help_of_the_command_line_need_no_torch() -> None:
    code = (
        "import sys, omnitraining, omnitraining.cli\n"
        "omnitraining.cli.main(['--help'])\n"
        "omnitraining.cli.main(['--version'])\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'rich', 'jsonargparse'} & {*sys.modules}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", omnitraining.__all__)
def test_public_names_are_where_type_checkers_find_them(name: str) -> None:
    assert getattr(omnitraining, name).__name__ == name
    assert name in dir(omnitraining)


def test_all_names_that_type_checkers_read_are_public() -> None:
    tree = ast.parse(Path(omnitraining.__file__).with_suffix(".pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    modules = {alias.asname: node.module for node in imports for alias in node.names}
    assert modules == omnitraining._MODULES
    assert sorted(modules) == omnitraining.__all__


def test_names_that_are_not_there_are_an_error_as_ever() -> None:
    with pytest.raises(AttributeError, match="module 'omnitraining' has no attribute 'Nothing'"):
        omnitraining.Nothing  # noqa: B018
