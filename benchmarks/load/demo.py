"""Visitors and vandals of the demo: ``python -m benchmarks.load.demo``, some five minutes.

Waves of 50 visitors at once teach and ask; then come 1,000 malformed requests; then another wave.
No visitor may be told the name of another's class, no answer may hold a traceback or a path of the
machine, and the memory of the server must not grow. What was found is written to
results/demo-load.json. It needs ``pip install 'omnitraining[demo]'``.
"""

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.load import RESULTS
from benchmarks.load.malformed import SECRETS, Attacker
from benchmarks.load.visitors import Server, Visitor, client, handlers, leaked, started, wave
from omnitraining.demo.page import SWEEP
from omnitraining.runs.run import provenance

VISITORS, WAVES, REQUESTS = 50, 1, 1000
EVERY = 50  # malformed requests between two looks at the memory
REST = SWEEP + 5  # seconds before the looks at half and at the end, in which the server tidies up


def measured(visitors: int, waves: int, requests: int) -> dict[str, Any]:
    """What a server of its own was asked, and what it said.

    Args:
        visitors: in a wave, at once.
        waves: before the malformed requests; one more comes after them.
        requests: that are malformed.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = started(Path(folder))
        try:
            found = asyncio.run(_asked(server, visitors, waves, requests))
        finally:
            code = server.stop()
        found["exit code"] = code
        found["temporary files left"] = len(server.files())
    return found


async def _asked(server: Server, visitors: int, waves: int, requests: int) -> dict[str, Any]:
    seen: list[Visitor] = []
    counts: Counter[str] = Counter()
    found: dict[str, Any] = {"visitors at once": visitors, "MiB at the start": _now(server)}
    async with client(server) as http:
        events = await handlers(http)
        after_waves = []
        for _ in range(waves):
            counts.update(await wave(http, events, visitors, seen))
            after_waves.append(await _rested(server))
            print(f"{len(seen)} visitors, {counts}, {after_waves[-1]} MiB", flush=True)
        found["malformed"] = await _malformed(http, server, events, requests)
        counts.update(await wave(http, events, visitors, seen))
        await asyncio.sleep(REST)
    seconds = [taken for visitor in seen for taken in visitor.seconds]
    return found | {
        "visitors": len(seen),
        **counts,
        "names of others that were seen": leaked(seen),
        "seconds per request": {
            "median": round(statistics.median(seconds), 2),
            "most": round(max(seconds), 2),
        },
        "MiB after each wave, rested": after_waves,
        "MiB at the end, rested": _now(server),
    }


async def _malformed(
    http: Any, server: Server, events: dict[str, int], requests: int
) -> dict[str, Any]:
    attacker = Attacker(http, server, events, random.Random(0))
    kinds = [*attacker.kinds]
    statuses: Counter[str] = Counter()
    secrets = hanging = dead = 0
    series, rested = [_now(server)], list[float]()
    start = time.monotonic()
    for number in range(requests):
        kind = kinds[number % len(kinds)]
        try:
            told = await asyncio.wait_for(attacker.kinds[kind](), 120)
        except asyncio.TimeoutError:
            hanging += 1
            print(f"{kind} hangs", file=sys.stderr)
            continue
        statuses[str(told.status) if told.status else "closed"] += 1
        if (leak := SECRETS.search(told.text)) or told.status >= 500:
            secrets += bool(leak)
            print(f"{kind}: {told.status} {leak and leak[0]}", file=sys.stderr)
        if (number + 1) % EVERY == 0:
            series.append(_now(server))
            dead += (await http.get("/config")).status_code != 200
            print(f"{number + 1} malformed, {series[-1]} MiB", flush=True)
        if number + 1 in (requests // 2, requests):
            rested.append(await _rested(server))
    return {
        "requests": requests,
        "kinds": len(kinds),
        "answers": dict(sorted(statuses.items())),
        "server errors": sum(n for status, n in statuses.items() if status.startswith("5")),
        "with a traceback or a path": secrets,
        "hanging": hanging,
        "page not served after": dead,
        "MiB": series,
        "seconds of rest": REST,
        "MiB at half, rested": rested[0],
        "MiB at the end, rested": rested[1],
        "temporary files": len(server.files()),
        "seconds": round(time.monotonic() - start),
    }


async def _rested(server: Server) -> float:
    await asyncio.sleep(REST)
    return _now(server)


def _now(server: Server) -> float:
    return round(server.resident(), 1)


def main() -> None:
    """Measure, and write what was found."""
    found = measured(VISITORS, WAVES, REQUESTS)
    record = {
        "title": "The demo with many visitors at once, and with malformed requests",
        "command": "python -m benchmarks.load.demo",
        **found,
        "versions": {name: version(name) for name in ("gradio", "fastapi", "starlette", "uvicorn")},
        "provenance": provenance(),
    }
    path = RESULTS / "demo-load.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    wrong = found["names of others that were seen"] + found["missing"]
    sys.exit(wrong + found["malformed"]["with a traceback or a path"] > 0)


if __name__ == "__main__":
    main()
