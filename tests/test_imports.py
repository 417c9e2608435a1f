"""Importing the library costs next to nothing; every public name is there all the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import omnitraining
from tests.reference.tiny import SINUSOIDS


def test_the_library_and_the_help_of_the_command_line_need_no_torch() -> None:
    code = (
        "import sys, omnitraining, omnitraining.cli\n"
        "omnitraining.cli.main(['--help'])\n"
        "omnitraining.cli.main(['--version'])\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'rich', 'jsonargparse'} & {*sys.modules}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_training_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """Each of these takes up to seconds, in every process."""
    config = tmp_path / "waves.yaml"
    config.write_text(yaml.safe_dump(SINUSOIDS))
    words = ["train", str(config), "--out", str(tmp_path / "run")]
    code = (
        "import sys, omnitraining.cli, omnitraining.cli.tune, omnitraining.experiments.tuning\n"
        f"code = omnitraining.cli.main({words})\n"
        "heavy = {'torch._dynamo', 'sklearn', 'scipy', 'sympy', 'matplotlib', 'optuna'}\n"
        "sys.exit(code or str(heavy & {*sys.modules} or '') or 0)"
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
