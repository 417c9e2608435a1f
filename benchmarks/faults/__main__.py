"""Kill runs, resume them, and count those with other results: ``python -m benchmarks.faults``.

Each run is killed up to three times, once in each manner, in random order, and then resumed to its
end. It is compared with an undisturbed run of the same configuration. Counts are written to
results/faults.json.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.faults.kills import MANNERS, differences, killed, seconds_of
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import parse
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.runs.run import load_checkpoint, provenance
from tests.reference.tiny import BLOBS, NAVIGATION, SINUSOIDS, Values

KINDS: dict[str, tuple[Values, int]] = {
    "classification": (merge(BLOBS, {"training": {"steps": 24, "val_every": 6}}), 18),
    "regression": (merge(SINUSOIDS, {"training": {"steps": 60, "val_every": 6}}), 16),
    "reinforcement learning": (
        merge(NAVIGATION, {"training": {"steps": 24, "val_every": 4}}),
        16,
    ),
}
"""Configuration, and number of kills."""


def main() -> None:
    """Kill, resume, compare, and write the counts."""
    chance = random.Random(0)
    record: dict[str, Any] = {"kinds": {}}
    with tempfile.TemporaryDirectory() as place:
        for kind, (values, kills) in KINDS.items():
            record["kinds"][kind] = disturbed(values, kills, Path(place) / kind, chance)
            print(f"{kind}: {record['kinds'][kind]}", flush=True)
        record["full disk"] = full_disk(KINDS["regression"][0], Path(place) / "disk")
        print(f"full disk: {record['full disk']}")
    record["kills"] = sum(counts["kills"] for counts in record["kinds"].values())
    record["differences"] = sum(counts["runs that differ"] for counts in record["kinds"].values())
    record["provenance"] = provenance()
    path = Path(__file__).parents[2] / "results" / "faults.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['kills']} kills, {record['differences']} differences: {path}")
    sys.exit(record["differences"] > 0)


def disturbed(values: Values, kills: int, place: Path, chance: random.Random) -> dict[str, Any]:
    """Kill runs of a configuration, and compare each with an undisturbed one.

    Args:
        values: the configuration.
        kills: number of kills.
        place: folder of the runs.
        chance: source of random times and orders.
    """
    whole = seconds_of(values, place / "whole")
    counts: Counter[str] = Counter()
    run_count = differing = 0
    while counts.total() < kills:
        folder = place / f"run{run_count}"
        for manner in chance.sample(MANNERS, len(MANNERS)):
            at = chance.uniform(0, whole) if manner == MANNERS[0] else chance.randrange(8)
            if counts.total() < kills and not (folder / "provenance.json").is_file():
                counts[manner] += killed(values, folder, manner, at)
        killed(values, folder)
        names = differences(place / "whole", folder)
        if names:
            print(f"{folder} differs: {names}", file=sys.stderr)
        differing += bool(names)
        run_count += 1
        shutil.rmtree(folder)
    return {"kills": counts.total(), **counts, "runs": run_count, "runs that differ": differing}


def full_disk(values: Values, place: Path) -> dict[str, Any]:
    """Train on a small tmpfs until it is full; then make room, and resume.

    Without the right to mount one, nothing is measured.

    Args:
        values: the configuration.
        place: folder to mount the disk at.
    """
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return {"measured": False}
    try:
        train_run(parse(values), place.parent / "roomy")
        outcomes, intact, start = Counter[str](), 0, time.monotonic()
        for size in range(0, 250, 30):
            ballast, folder = place / "ballast", place / f"run{size}"
            ballast.write_bytes(bytes(1024 * (250 - size)))
            try:
                train_run(parse(values), folder)
                outcomes["no error"] += 1
            except InputError as error:
                outcomes["one line" if "No space left" in str(error) else "other words"] += 1
            for which in ("last", "best"):
                path = folder / f"{which}.safetensors"
                intact += path.is_file() and load_checkpoint(path, {})["step"] > 0
            ballast.unlink()
            train_run(parse(values), folder, resume=folder.is_dir())
            outcomes["resumed to another end"] += bool(differences(place.parent / "roomy", folder))
            shutil.rmtree(folder)
        seconds = round(time.monotonic() - start)
        return {"measured": True, **outcomes, "checkpoints intact": intact, "seconds": seconds}
    finally:
        subprocess.run(["umount", str(place)], check=False)


if __name__ == "__main__":
    main()
