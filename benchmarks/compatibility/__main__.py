"""Install the wheel without extras in fresh environments, and use it: ``make matrix``.

For each Python, and for the oldest and the newest torch: the lower bound in pyproject.toml and the
version in constraints.txt. For the first Python that is there also with the lower bounds of all
dependencies together. What was measured is kept in results/compatibility.json after each pair, and
is not measured again without ``--again``.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

from benchmarks.compatibility.standins import stand_in
from omnitraining.io.files import open_atomic
from omnitraining.runs.run import provenance

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "results" / "compatibility.json"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
OLDEST = ", all others oldest"
LIMIT = 1800
"""Seconds of one command."""

LIST_REQUIREMENTS = (
    "import importlib.metadata as m, json; print(json.dumps(m.requires('torch') or []))"
)


class CommandError(Exception):
    """A command ended with an error; the message is its last line."""


def main() -> None:
    """Measure what is not in the record, and write it there."""
    given = options()
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    rows: dict[str, Any] = record.get("rows", {})
    found = interpreters(given.python)
    with tempfile.TemporaryDirectory() as place:
        wheel = built(Path(place))
        first = next((minor for minor in PYTHONS if minor in found), PYTHONS[0])
        pairs = [(minor, torch, "") for minor in PYTHONS for torch in given.torch]
        pairs += [(first, torch, OLDEST) for torch in given.torch]
        for minor, torch, others in pairs:
            row = {"python": minor, "torch": torch, "result": "not tried"}
            rows.setdefault(f"{minor}, {torch}{others}", row)
        for minor, torch, others in pairs:
            key = f"{minor}, {torch}{others}"
            done = rows[key]["result"] in ("passed", "failed") and not given.again
            if done or (given.only and key.replace(", ", "/", 1) not in given.only):
                continue
            print(f"Python {minor}, torch {torch}{others} ...", flush=True)
            row = {"python": minor, "torch": torch, "result": "not available"}
            if minor in found:
                pair = Path(place) / "pair"
                row |= measured(found[minor], torch, wheel, pair, given, bool(others))
            else:
                row["why"] = f"there is no Python {minor} here"
            rows[key] = row
            print(json.dumps(row), flush=True)
            record = {
                "title": "The wheel without extras, in fresh environments",
                "command": "make matrix",
                "rows": {name: rows[name] for name in sorted(rows, key=order)},
                "provenance": provenance(),
            }
            with open_atomic(RECORD) as file:
                file.write((json.dumps(record, indent=1) + "\n").encode())
    sys.exit(any(row["result"] == "failed" for row in rows.values()))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", nargs="*", default=[], help="more interpreters than on PATH")
    parser.add_argument("--torch", nargs="*", default=torches(), help="versions of torch")
    parser.add_argument("--only", nargs="*", help="these pairs alone, as 3.12/2.6.0")
    parser.add_argument("--torch-index", help="index of torch, as one of builds for the CPU")
    parser.add_argument(
        "--without-cuda",
        action="store_true",
        help="leave out the CUDA libraries of torch, gigabytes; empty ones stand in for them",
    )
    parser.add_argument("--again", action="store_true", help="measure anew what is in the record")
    return parser.parse_args()


def torches() -> list[str]:
    """The oldest version that pyproject.toml allows, and the newest that was tested."""
    oldest = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    newest = re.search(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if oldest is None or newest is None:
        raise SystemExit("pyproject.toml or constraints.txt does not say which torch")
    return [oldest[1] + ".0" * (2 - oldest[1].count(".")), newest[1]]


def order(key: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", key)]


def interpreters(more: list[str]) -> dict[str, str]:
    """The Pythons that start, by version; a name on PATH may be a shim without a Python."""
    found: dict[str, str] = {}
    for name in [*more, *(f"python{minor}" for minor in PYTHONS)]:
        path = shutil.which(name)
        words = [path or name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(words, capture_output=True, text=True, check=False) if path else None
        if done and done.returncode == 0:
            found.setdefault(done.stdout.strip(), words[0])
    return found


def built(place: Path) -> Path:
    """The wheel, built from a copy of the sources, so that no folder of a build is left."""
    copy = place / "sources"
    shutil.copytree(
        ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", place, copy], place)
    (wheel,) = place.glob("*.whl")
    return wheel


def measured(
    python: str, torch: str, wheel: Path, place: Path, given: argparse.Namespace, oldest: bool
) -> dict[str, Any]:
    """Install in a fresh environment, which is removed in the end, and use what was installed.

    ``oldest`` takes the lower bounds of all dependencies but torch.
    """
    start, row = time.monotonic(), dict[str, Any]()
    shutil.rmtree(place, ignore_errors=True)
    (place / "work").mkdir(parents=True)
    inside = place / "env" / "bin" / "python"
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if oldest:
        bounds = place / "oldest.txt"
        bounds.write_text("\n".join(lowest(requirements(wheel))))
        pip += ["--constraint", bounds]
    row["cuda"] = "left out" if given.without_cuda else "as pip installs it"
    try:
        run([python, "-m", "venv", place / "env"], place)
        index = ["--index-url", given.torch_index] if given.torch_index else []
        if given.without_cuda:
            run([*pip, "--no-deps", *index, f"torch=={torch}"], place)
            told = run([inside, "-c", LIST_REQUIREMENTS], place)
            run([*pip, *plain(json.loads(told)), *plain(requirements(wheel))], place)
            run([*pip, "--no-deps", wheel], place)
            (packages,) = (place / "env" / "lib").glob("*/site-packages")
            # A build for the CPU needs no libraries, and none stand in for them.
            row["cuda"] = "left out" if stand_in(packages / "torch" / "lib") else "build without"
        else:
            if index:
                run([*pip, *index, f"torch=={torch}"], place)
            run([*pip, f"torch=={torch}", wheel], place)
    except (CommandError, subprocess.TimeoutExpired) as error:
        return row | {"result": "not installed", "why": str(error)}
    row["installed"] = round(time.monotonic() - start)
    try:
        use = [inside, ROOT / "benchmarks" / "compatibility" / "use.py"]
        told = run([*use, ROOT / "README.md", ROOT / "tests" / "fixtures"], place / "work")
        row |= {"result": "passed", **json.loads(told.splitlines()[-1])}
    except (CommandError, subprocess.TimeoutExpired) as error:
        row |= {"result": "failed", "why": str(error)}
    row["seconds"] = round(time.monotonic() - start) - row["installed"]
    shutil.rmtree(place)
    return row


def requirements(wheel: Path) -> list[str]:
    """What a wheel requires."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(file.read(name)).get_all("Requires-Dist") or []


def lowest(requirements: list[str]) -> list[str]:
    """Constraints to the lower bounds of what a wheel requires."""
    found = (re.match(r"([\w.-]+)(?:\[.*?\])?[^;]*?>=\s*([\d.]+)", r) for r in plain(requirements))
    return [f"{match[1]}=={match[2]}" for match in found if match]


def plain(requirements: list[str]) -> list[str]:
    """Requirements without extras, torch, and what is for GPUs alone."""
    return [
        text
        for text in requirements
        if "extra ==" not in text and not re.match(r"(torch\b|triton|nvidia|cuda)", text)
    ]


def run(words: list[Any], place: Path) -> str:
    """What a command prints.

    Raises:
        CommandError: it ends with an error.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=place,
        env=kept | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"ERROR|\w*(Error|Warning|Exception)\b", line)]
        raise CommandError(
            [*lines, *errors][-1].strip()[:300] if lines else f"exit {done.returncode}"
        )
    return done.stdout


if __name__ == "__main__":
    main()
