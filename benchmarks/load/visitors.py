"""Visitors of the demo, as their browsers would speak to it, many at once.

A visitor teaches classes whose names no other visitor has, and asks about pictures of them. All
that the server says to it is kept, so that a name of another visitor in it would be seen.
"""

import asyncio
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnitraining.demo import examples

PATIENCE = 300  # seconds, for a busy machine
SIZE = 32


@dataclass
class Server:
    """The demo in a process of its own.

    Attributes:
        process: of the server.
        url: where it is.
        temporary: its folder for temporary files.
        log: what it said on standard error.
    """

    process: "subprocess.Popen[str]"
    url: str
    temporary: Path
    log: Path

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def resident(self) -> float:
        """Resident memory in MiB."""
        words = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", words)
        assert found, words
        return int(found[1]) / 1024

    def files(self) -> list[Path]:
        """Temporary files that it keeps."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def started(folder: Path) -> Server:
    """A server that answers.

    Args:
        folder: for its temporary files and its log.
    """
    temporary, log = folder / "temporary", folder / "log.txt"
    temporary.mkdir()
    code = "import sys; from omnitraining.cli import main; sys.exit(main(['demo']))"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found, log.read_text()
    return Server(process, found[0], temporary, log)


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[Any]:
    """A client of HTTP with as many connections as it takes."""
    httpx = import_module("httpx")
    # The server closes connections that are idle for 5 seconds, as browsers know.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=1)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as made:
        yield made


async def handlers(http: Any) -> dict[str, int]:
    """The number of the event that each element of the page is bound to."""
    config = (await http.get("/config")).json()
    names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
    return {
        names[dependency["targets"][0][0]]: dependency["id"]
        for dependency in config["dependencies"]
        if dependency["backend_fn"] and dependency["targets"]
    }


@dataclass
class Visitor:
    """One visitor.

    Args:
        http: a client.
        events: as `handlers` gives them.
        number: of the visitor, which chooses its letters.
        names: of its classes; nobody else has them.
        session: that the server knows it by.
        seen: all that the server said.
        seconds: that each request took.
    """

    http: Any
    events: dict[str, int]
    number: int
    names: list[str] = field(default_factory=list)
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    seen: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def upload(self, images: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Pictures as the server keeps them until they are used."""
        parts = [("files", (f"{index}.png", png(image))) for index, image in enumerate(images)]
        answer = await self.http.post("/gradio_api/upload", files=parts)
        answer.raise_for_status()
        kind = {"_type": "gradio.FileData"}
        return [{"path": path, "orig_name": "0.png", "meta": kind} for path in answer.json()]

    async def do(self, element: str, *inputs: Any) -> str:
        """Press a button; what the page shows then.

        Args:
            element: of the page.
            inputs: of the event, without those that the server keeps, which are None.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        body = {"data": inputs, "fn_index": self.events[element], "session_hash": self.session}
        joined = await self.http.post("/gradio_api/queue/join", json=body)
        joined.raise_for_status()
        text = await finished(self.http, self.session, joined.json()["event_id"])
        self.seen.append(text)
        self.seconds.append(loop.time() - start)
        return text

    async def teach(self, letter: int) -> str:
        """Add a class, whose pictures are those of one of the five letters."""
        name = f"{self.number}-{secrets.token_hex(5)}"
        self.names.append(name)
        images = list(examples.armenian(SIZE).support.values())[letter][:3]
        return await self.do("add", None, name, await self.upload(images))

    async def ask(self, letter: int) -> str | None:
        """The answer to a picture of one of the five letters; None if there was none."""
        image = examples.armenian(SIZE).queries[letter]
        (picture,) = await self.upload([image])
        text = await self.do("ask", None, "Upload", None, picture, None)
        found = re.search(r'id=\\?"omni-label\\?">([^<]*)<', text)
        return found[1] if found else None


async def finished(http: Any, session: str, event: str) -> str:
    """All that the server says of a session until an event has been handled."""
    text = ""
    address = "/gradio_api/queue/data"
    async with http.stream("GET", address, params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            text += line + "\n"
            if not line.startswith("data: "):
                continue
            message = json.loads(line.removeprefix("data: "))
            ends = message["msg"] == "process_completed" and message["event_id"] == event
            if ends or message["msg"] in ("close_stream", "unexpected_error", "server_stopped"):
                break
    return text


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture as a file."""
    made = io.BytesIO()
    Image.fromarray(image).save(made, "PNG")
    return made.getvalue()


async def wave(http: Any, events: dict[str, int], count: int, seen: list[Visitor]) -> Any:
    """So many visitors at once: all teach, then all ask, then all teach more and ask again.

    Args:
        http: a client.
        events: as `handlers` gives them.
        count: of the visitors.
        seen: visitors of all waves, to which these are added.

    Returns:
        Answers asked for, those that were right, and those refused.
    """
    visitors = [Visitor(http, events, number) for number in range(len(seen), len(seen) + count)]
    seen += visitors
    counts = {"answers": 0, "right": 0, "missing": 0}

    async def judged(visitor: Visitor, turn: int) -> None:
        label = await visitor.ask((visitor.number + turn) % 5)
        counts["answers"] += 1
        counts["missing"] += label is None
        counts["right"] += label == visitor.names[turn]

    for turn in range(2):
        await asyncio.gather(*(v.teach((v.number + turn) % 5) for v in visitors))
    await asyncio.gather(*(judged(v, 0) for v in visitors))
    await asyncio.gather(*(v.teach((v.number + 2) % 5) for v in visitors))
    for turn in range(3):
        await asyncio.gather(*(judged(v, turn) for v in visitors))
    return counts


def leaked(visitors: Sequence[Visitor]) -> int:
    """How often a visitor was told the name of another's class."""
    owner = {name: visitor.number for visitor in visitors for name in visitor.names}
    pattern = re.compile(r"\d+-[0-9a-f]{10}")
    return sum(
        owner.get(name, visitor.number) != visitor.number
        for visitor in visitors
        for text in visitor.seen
        for name in set(pattern.findall(text))
    )
