"""What stands before Gradio: which requests reach it, how large, and what is kept of uploads.

Gradio serves more than this page needs, takes bodies of any size outside of uploads, keeps what an
upload that was cut off had sent, and gives two visitors who upload the same picture the same file.
"""

import asyncio
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from omnitraining.demo.session import IMAGES, MEGABYTES, SECONDS

IDLE = 3600  # seconds after which files are deleted
TOGETHER = 100  # megabytes of one upload
KEPT = 1000  # megabytes of temporary files
LOOK = 2  # seconds between two looks at how much is kept
SKETCH = 2**19  # bytes of one layer of a drawing
ORDINARY = 2**16  # bytes of any other request
DRAINED = 5  # seconds in which the rest of a refused request is read, so that the answer is seen
LAYERS = 8  # of a drawing
PREFIX = "/gradio_api"
UPLOAD, DRAWING, JOIN = (f"{PREFIX}/{n}" for n in ("upload", "component_server", "queue/join"))
READ = re.compile(
    rf"/(|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/.+)/?|"
    rf"{PREFIX}/(info|app_id|theme\.css|startup-events|upload_progress|queue/(data|status)|"
    r"heartbeat/[^/]+|file=.+)/?"
)
WRITTEN = re.compile(rf"({UPLOAD}|{DRAWING}|{JOIN}|{PREFIX}/(cancel|reset))/?")
NAMES = re.compile(rb"(127\.0\.0\.1|localhost)(:\d+)?")  # of this server
OWN = r"(https?://(127\.0\.0\.1|localhost)(:\d+)?)?"  # origins of this server
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' "
    "blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'"
)
Message = dict[str, Any]


class Files:
    """Temporary files of a server: how many uploads share one, and how long they may stay.

    Args:
        folder: that holds them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._uploads: Counter[str] = Counter()
        self._lock = Lock()
        self._size, self._looked = 0, -math.inf

    def came(self, paths: Iterable[str]) -> None:
        """Note what was uploaded; the same content has the same path."""
        with self._lock:
            self._uploads.update(paths)

    def used(self, paths: Iterable[Path]) -> None:
        """Delete what was used, unless another visitor has uploaded the same and not used it."""
        with self._lock:
            for path in paths:
                self._uploads[str(path)] -= 1
                if self._uploads[str(path)] <= 0:
                    del self._uploads[str(path)]
                    path.unlink(missing_ok=True)

    def has_room(self) -> bool:
        """Whether more may be kept; what is old is deleted first."""
        if time.monotonic() - self._looked > LOOK:
            self._size, self._looked = self.sweep(), time.monotonic()
        return self._size < KEPT * 2**20

    def sweep(self) -> int:
        """Delete old files, and what uploads left that were cut off.

        Returns:
            Bytes of the others.
        """
        total, now, left = 0, time.time(), set()
        for path in [*self.folder.rglob("*")]:
            with suppress(OSError):  # others delete too
                status = path.lstat()
                if path.is_dir():
                    if now - status.st_ctime > SECONDS:
                        path.rmdir()  # fails if it is not empty
                    continue
                # Gradio writes an upload to a file in the folder itself, and moves it when it ends.
                longest = SECONDS + 1 if path.parent == self.folder else IDLE
                if now - status.st_ctime > longest:
                    path.unlink()
                else:
                    total += status.st_size
                    left.add(str(path))
        with self._lock:
            self._uploads = Counter({p: n for p, n in self._uploads.items() if p in left})
        return total


class RefusedError(Exception):
    """A request that does not reach Gradio.

    Args:
        status: of HTTP.
        words: that are the answer.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Guard:
    """Middleware that refuses what the page does not need, and adds the policy to every answer.

    Args:
        app: the application.
        files: its temporary files.
        events: how many inputs each event of the page has, by its number.
        tidy: called before each drawing and each event, with the session that asks if there is
            one, to drop what others left behind.
    """

    def __init__(
        self, app: Any, files: Files, events: Mapping[int, int], tidy: Callable[[str], None]
    ) -> None:
        self.app, self.files, self.events, self.tidy = app, files, events, tidy

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # of which the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.files)
        try:
            await self._admit(exchange)
            await self.app(scope, exchange.receive, exchange.send)
        except RefusedError as refusal:
            exchange.refusal = refusal
        except Exception:
            # Gradio has answered, and a refusal made it fail; otherwise the server logs it.
            if exchange.refusal is None:
                raise
        await exchange.conclude()

    async def _admit(self, exchange: "_Exchange") -> None:
        """Raises a `RefusedError`, or lets the request through."""
        path, method = exchange.path, exchange.scope["method"]
        if not NAMES.fullmatch(exchange.headers.get(b"host", b"")):
            raise RefusedError(400, "This server has another name.")  # one bound to this machine
        if exchange.is_foreign and not (path == "/" and method in ("GET", "HEAD")):
            raise RefusedError(403, "Pages of other servers may only link to this one.")
        allowed = {"GET": READ, "HEAD": READ, "POST": WRITTEN}.get(method)
        if allowed is None:
            raise RefusedError(405, "This is not allowed.")
        file = path.partition("/file=")[2]
        if not allowed.fullmatch(path) or not self._is_own(file or None, ""):
            raise RefusedError(404, "There is nothing here.")
        if exchange.declared > exchange.most:
            raise exchange.too_large()
        if exchange.kind == DRAWING:
            await exchange.check_layers()
            self.tidy("")
        if exchange.kind == JOIN:
            self.tidy(self._check_event(await exchange.whole()))
        if exchange.kind == UPLOAD and not self.files.has_room():
            raise RefusedError(507, "Too many pictures are kept for now. Try again later.")

    def _check_event(self, body: bytes) -> str:
        """Gradio makes a file for each that is named, and fetches addresses that are given.

        Returns:
            The session that asks.
        """
        try:
            event = json.loads(body)
            inputs = event["data"]
            session, number = event["session_hash"], event["fn_index"]
            right = isinstance(session, str) and re.fullmatch(r"[\w-]{1,64}", session)
            if not right or type(number) is not int or len(inputs) != self.events[number]:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RefusedError(400, "There is no such event.") from error
        parts, named = [inputs], 0
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                place = part.get("path")
                named += place is not None
                if not self._is_own(place, "") or not self._is_own(
                    part.get("url"), f"{PREFIX}/file="
                ):
                    raise RefusedError(400, "This is no uploaded file.")
            if isinstance(part, dict | list):
                parts += part.values() if isinstance(part, dict) else part
            if named > IMAGES:
                raise RefusedError(413, f"At most {IMAGES} pictures at a time.")
        return str(session)

    def _is_own(self, place: Any, before: str) -> bool:
        """Whether a path, or an address, is nothing or one of an uploaded file."""
        if place is None:
            return True
        folder = f"{before}{self.files.folder}/"
        if not isinstance(place, str) or ".." in place or folder not in place:
            return False
        start = place.partition(folder)[0]
        return not start or bool(before and re.fullmatch(OWN, start))


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Message, receive: Any, send: Any, files: Files) -> None:
        self.scope, self._receive, self._send, self._files = scope, receive, send, files
        self.path: str = scope["path"]
        self.headers = {name: value for name, value in scope["headers"]}
        self.kind = self.path.rstrip("/") if scope["method"] == "POST" else ""
        self.is_upload = self.kind == UPLOAD
        self.most = {UPLOAD: TOGETHER * 2**20, DRAWING: SKETCH}.get(self.kind, ORDINARY)
        length = self.headers.get(b"content-length", b"0")
        self.declared = int(length) if length.isdigit() else 0
        kind = self.headers.get(b"content-type", b"")
        found = re.search(rb'boundary="?([^";,\s]+)', kind)
        self._boundary = b"--" + found[1] if found else b""
        self._tail, self._parts, self._size = b"", 0, 0
        self._until = time.monotonic() + SECONDS
        self._waits, self._held = True, list[Message]()
        self.refusal: RefusedError | None = None
        self.started = False
        self._status, self._answer = 0, b""

    @property
    def is_foreign(self) -> bool:
        """Whether a page of another origin asks; browsers say so, and other programs need not."""
        origin, site = self.headers.get(b"origin"), self.headers.get(b"sec-fetch-site")
        own = {scheme + self.headers.get(b"host", b"") for scheme in (b"http://", b"https://")}
        return site not in (None, b"same-origin", b"none") or origin not in (None, *own)

    def too_large(self) -> RefusedError:
        if self.is_upload:
            return RefusedError(
                413, f"At most {IMAGES} pictures of {MEGABYTES} MB, {TOGETHER} MB together."
            )
        return RefusedError(413, "This request is too large.")

    async def receive(self) -> Message:
        """The next part of the body, or a disconnection once there was too much of it."""
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self._held:
            return self._held.pop(0)
        return await self._next()

    async def _next(self) -> Message:
        if not self._waits:
            message: Message = await self._receive()
            return message
        try:
            message = await asyncio.wait_for(self._receive(), self._until - time.monotonic())
        except asyncio.TimeoutError:
            self.refusal = RefusedError(408, f"The request took more than {SECONDS} seconds.")
            return {"type": "http.disconnect"}
        self._waits = bool(message.get("more_body", False))
        body = message.get("body", b"")
        self._size += len(body)
        if self.is_upload and self._boundary:
            whole = self._tail + body
            self._parts += whole.count(self._boundary)
            self._tail = whole[max(0, len(whole) - len(self._boundary) + 1) :]
        if self._size > self.most or self._parts > IMAGES + 1:  # one boundary more than files
            self.refusal = self.too_large()
            return {"type": "http.disconnect"}
        return message

    async def whole(self) -> bytes:
        """The whole body, which is passed on later."""
        while self._waits:
            self._held.append(await self._next())
            if self.refusal is not None:
                raise self.refusal
            if self._held[-1]["type"] == "http.disconnect":
                raise RefusedError(400, "The request was cut off.")
        return b"".join(message.get("body", b"") for message in self._held)

    async def check_layers(self) -> None:
        """Gradio makes a list as long as the number of a layer says, so it must be small."""
        await self.whole()
        messages = [*self._held]

        async def again() -> Message:
            return messages.pop(0)

        request = import_module("starlette.requests").Request(self.scope, again)
        try:
            async with request.form() as form:
                numbers = form.getlist("index")
        except Exception as error:  # whatever a damaged body makes the parser raise
            raise RefusedError(400, "This is no drawing.") from error
        if not {*numbers} <= {"", "null", *map(str, range(LAYERS))}:
            raise RefusedError(400, "This is no drawing.")

    async def send(self, message: Message) -> None:
        """Pass an answer on, unless the request was refused."""
        if self.refusal is not None and not self.started:
            return
        if message["type"] == "http.response.start" and self.is_upload and message["status"] == 500:
            self.refusal = RefusedError(400, "The upload could not be read.")
            return
        if message["type"] == "http.response.start":
            self.started, self._status = True, message["status"]
            message = {**message, "headers": [*message.get("headers", []), *_ours()]}
        elif self.is_upload and self._status == 200:
            self._answer += message.get("body", b"")
            if not message.get("more_body", False):
                self._files.came(re.findall(r'"((?:[^"\\]|\\.)*)"', self._answer.decode()))
        await self._send(message)

    async def conclude(self) -> None:
        """Answer a request that was refused."""
        if self.refusal is None or self.started:
            return
        until = time.monotonic() + DRAINED
        with suppress(asyncio.TimeoutError):
            while self._waits and (left := until - time.monotonic()) > 0:
                message = await asyncio.wait_for(self._receive(), left)
                self._waits = bool(message.get("more_body", False))
        body = self.refusal.words.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # what else the client sends is not read
            *_ours(),
        ]
        start = {"type": "http.response.start", "status": self.refusal.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _ours() -> list[tuple[bytes, bytes]]:
    return [
        (b"content-security-policy", POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
