"""Where a record comes from, and what the same takes at full size."""

import re
from typing import Any

from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import markdown, seeds

NOT_RECORDED = "not recorded"
FULL_SIZE = ("teraflop per step", "hours", "GiB")


def provenance(record: Record) -> str:
    """Command, commit, machine, versions and time of a record."""
    trainings = [
        facts for row in record.rows.values() for facts in row.trainings.values() if facts.seconds
    ]

    def values(name: str) -> str:
        known = dict.fromkeys(facts.provenance.get(name) for facts in trainings)
        return ", ".join(str(value) for value in known if value is not None) or NOT_RECORDED

    seconds = sum(sum(facts.seconds) for facts in trainings)
    peak = max((max(facts.peak_mib) for facts in trainings if facts.peak_mib), default=None)
    lines = [
        ["Command", f"`{record.command}`"],
        ["Seeds and test tasks", f"{seeds(record)}, {record.tasks} tasks per cell"],
        ["Commit", values("commit")],
        ["Machine", f"{values('machine')}; {values('cpus')} cores, device {values('device')}"],
        ["Versions", f"torch {values('torch')}, Python {values('python')}"],
        ["Training time, all rows and seeds", duration(seconds) if trainings else NOT_RECORDED],
        ["Peak memory of a run's process", NOT_RECORDED if peak is None else f"{peak:,} MiB"],
    ]
    if budget := re.search(r"--budget ([\d.]+)", record.command):
        whole = f"{duration(seconds / float(budget[1]))}, on the same machine"
        lines.append(["Training time at full size, estimated from that", whole])
    return markdown(["", ""], lines)


def full_size(counts: dict[str, Any], experiment: str) -> str:
    """The cost of an experiment's rows at full size, as far as it was counted.

    Args:
        counts: as ``benchmarks.full_size`` writes them; empty where nothing was counted.
        experiment: its name.
    """
    rows = counts.get("experiments", {}).get(experiment)
    if not rows:
        return ""
    runs = {row["run"]: row for row in rows.values()}
    hours = sum(row["hours"] for row in runs.values())
    return (
        f"At full size, counted and not measured (`{counts['command']}`): {hours:.0f} hours of "
        f"training for the {len(runs)} runs of one seed, at {counts['TFLOP per second']:g} TFLOP "
        "per second, which is about what an A100 does in TF32; and at least so much memory:\n\n"
    ) + markdown(
        ["row", "steps", "TFLOP per step", "hours", "GiB, at least"],
        [
            [name, f"{row['steps']:,}", *(f"{row[key]:g}" for key in FULL_SIZE)]
            for name, row in rows.items()
        ],
    )


def duration(seconds: float) -> str:
    """In minutes or hours."""
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
