"""Tables of the benchmarks of load, faults, long training and compatibility, as Markdown."""

from typing import Any

from omnitraining.experiments.tables import markdown

Values = dict[str, Any]


def faults(record: Values) -> str:
    """Runs that were killed and resumed, and runs on a full disk."""
    lines = [
        [kind, str(found["kills"]), str(found["runs"]), str(found["runs that differ"])]
        for kind, found in record["kinds"].items()
    ]
    disk = record["full disk"]
    words = "A full disk was not measured.\n"
    if disk["measured"]:
        count = disk["one line"] + disk["no error"]
        words = (
            f"Of {count} runs on a disk that was nearly full, {disk['one line']} ended for want of "
            f"space, each with one line; {disk['checkpoints intact']} checkpoints were read, all "
            f"intact; {disk['resumed to another end']} resumed runs ended otherwise.\n"
        )
    return (
        f"**Runs that were killed and resumed** (`python -m benchmarks.faults`; {record['kills']} "
        "kills; compared bit by bit with runs that nothing disturbed).\n\n"
        + markdown(["runs of", "kills", "runs", "that end otherwise"], lines)
        + f"\n{words}"
    )


def thread_load(record: Values) -> str:
    """Predictions by many threads that differ from a single thread's."""
    lines = [
        [kind, str(found["predictions"]), str(found["threads"]), str(found["different"])]
        for kind, found in record["kinds"].items()
    ]
    return f"**{record['title']}** (`{record['command']}`; compared bit by bit).\n\n" + markdown(
        ["learner", "predictions", "threads", "different"], lines
    )


def long_run(record: Values) -> str:
    """Resident memory while as many steps are taken as a day has."""
    lines = [
        [kind, str(found["steps"]), found["a day of"],
         *(f"{found[key]:.1f}" for key in ("MiB after a tenth", "MiB at half", "MiB at the end")),
         f"{found['growth in the second half, MiB']:+.1f}"]
        for kind, found in record["kinds"].items()
    ]  # fmt: skip
    return (
        f"**{record['title']}** (`{record['command']}`; tiny networks: what is left behind is left "
        "step by step, whatever their size).\n\n"
        + markdown(
            ["training", "steps", "which are a day of", "MiB after a tenth", "at half",
             "at the end", "second half"],
            lines,
        )
    )  # fmt: skip


def compatibility(record: Values) -> str:
    """Versions of Python and torch in which the wheel was installed and used, or was not."""
    lines = [
        [row.get("exact", f"{row['python']}, {row['torch']}"), row["result"],
         *(str(row[key]) if key in row else "" for key in ("cuda", "installed", "seconds", "why"))]
        for row in record["rows"].values()
    ]  # fmt: skip
    return (
        f"**{record['title']}** (`{record['command']}`: the README's example, short runs, "
        "the shipped model, files of earlier versions; the oldest and the newest torch).\n\n"
        + markdown(
            ["Python, torch", "result", "CUDA libraries", "s to install", "s to use", "why"], lines
        )
    )
