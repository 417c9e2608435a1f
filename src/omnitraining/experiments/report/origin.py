"""Where a record comes from, and what the same takes at full size."""

import re

from omnitraining.experiments.report.sections import Record, seeds, table

NOT_RECORDED = "not recorded"
FULL_SIZE = ("teraflop per step", "hours", "GiB")


def origin(record: Record) -> str:
    """Who made a record, with what, and in how much time; what is not known is said."""
    parts = [
        part
        for row in record["rows"].values()
        for part in (row["settings"].values() if "settings" in row else [row])
        if "seconds" in part
    ]

    def told(name: str) -> str:
        values = dict.fromkeys(part["provenance"].get(name) for part in parts)
        return ", ".join(str(value) for value in values if value is not None) or NOT_RECORDED

    seconds = sum(sum(part["seconds"]) for part in parts)
    peak = max((max(part["peak_mib"]) for part in parts), default=None)
    lines = [
        ["Command", f"`{record['command']}`"],
        ["Seeds and test tasks", f"{seeds(record)}, {record['tasks']} tasks per cell"],
        ["Commit", told("commit")],
        ["Machine", f"{told('machine')}; {told('cpus')} cores, device {told('device')}"],
        ["Versions", f"torch {told('torch')}, Python {told('python')}"],
        ["Training time, all rows and seeds", duration(seconds) if parts else NOT_RECORDED],
        ["Peak memory of a run's process", NOT_RECORDED if peak is None else f"{peak:,} MiB"],
    ]
    if budget := re.search(r"--budget ([\d.]+)", record["command"]):
        whole = f"{duration(seconds / float(budget[1]))}, on the same machine"
        lines.append(["Training time at full size, estimated from that", whole])
    return table(["", ""], lines)


def full_size(record: Record, experiment: str) -> str:
    """What the rows of an experiment take at full size, as far as that was counted.

    Args:
        record: as ``benchmarks.full_size`` writes it; empty where nothing was counted.
        experiment: its name.
    """
    rows = record.get("experiments", {}).get(experiment)
    if not rows:
        return ""
    runs = {row["run"]: row for row in rows.values()}
    hours = sum(row["hours"] for row in runs.values())
    return (
        f"At full size, counted and not measured (`{record['command']}`): {hours:.0f} hours of "
        f"training for the {len(runs)} runs of one seed, at {record['TFLOP per second']:g} TFLOP "
        "per second, which is about what an A100 does in TF32; and at least so much memory:\n\n"
    ) + table(
        ["row", "steps", "TFLOP per step", "hours", "GiB, at least"],
        [
            [name, f"{row['steps']:,}", *(f"{row[key]:g}" for key in FULL_SIZE)]
            for name, row in rows.items()
        ],
    )


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
