"""Fuzz every parser, guided by coverage: ``python -m benchmarks.fuzz [PARSER ...]``.

Needs atheris, which is not among the dependencies of developers: pip install atheris. A parser may
refuse its input only by an `InputError`; any other exception is a crash, whose input is printed.
Counts are written to results/fuzz.json.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PLACE = Path(__file__).parents[2] / "results" / "fuzz.json"
LONGEST = 4096  # bytes of an input


def main() -> None:
    """Fuzz all parsers, or those that are named, each in a process of its own."""
    if sys.argv[1:2] == ["--one"]:
        return one(sys.argv[2], sys.argv[3:])
    from benchmarks.fuzz.parsers import PARSERS
    from omnitraining.runs.run import provenance

    record = json.loads(PLACE.read_text()) if PLACE.is_file() else {"parsers": {}}
    failed = False
    for name in sys.argv[1:] or PARSERS:
        record["parsers"][name] = counts = fuzzed(name, PARSERS[name].executions)
        failed |= counts["crashes"] > 0
        print(f"{name}: {counts}", flush=True)
        record["atheris"], record["provenance"] = version("atheris"), provenance()
        PLACE.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(failed)


def fuzzed(name: str, executions: int) -> dict[str, float]:
    """Counts of a fuzzer that runs one parser until it crashes, or ``executions`` times."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options = [f"-runs={executions}", f"-max_len={LONGEST}", "-rss_limit_mb=3000", "-seed=1"]
        options += ["-timeout=60", f"-artifact_prefix={folder}/"]
        words = [sys.executable, "-m", "benchmarks.fuzz", "--one", name, *options]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        ran = re.findall(r"^(?:#|Done )(\d+)", done.stderr, re.MULTILINE)
        covered = re.findall(r" cov: (\d+)", done.stderr)
        for crash in Path(folder).iterdir():
            print(f"{name}, {crash.name}: {crash.read_bytes()[:400]!r}", file=sys.stderr)
        if done.returncode:
            print(done.stdout[-2000:] + done.stderr[-3000:], file=sys.stderr)
    return {
        "executions": max(map(int, ran), default=0),
        "crashes": int(done.returncode != 0),
        "edges covered": int(covered[-1]) if covered else 0,
        "seconds": round(time.monotonic() - start),
    }


def one(name: str, options: list[str]) -> None:
    """Fuzz one parser in this process."""
    import atheris

    with atheris.instrument_imports(include=["omnitraining", "pickletools", "csv"]):
        from benchmarks.fuzz.parsers import PARSERS
    from omnitraining.errors import InputError

    parser = PARSERS[name]

    def test(data: bytes) -> None:
        try:
            parser.read(data)
        except InputError as error:
            if "\n" in str(error).strip() and "\n" not in data.decode("latin1"):
                raise AssertionError("more than one line") from error

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(parser.seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], corpus, *options], test)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
