"""Requests that no browser sends, of many kinds, each of which must end in a short answer."""

import asyncio
import io
import json
import random
import re
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from benchmarks.load.visitors import Server, finished, png
from omnitraining.demo import examples

API = "/gradio_api"
SECRETS = re.compile(r"Traceback|site-packages|File \"|/home/|/root|/usr/|/etc/|omni-demo-|\.py\b")
"""Of which nothing may be in an answer; the path of an upload is, to whoever uploaded it."""


class Told(NamedTuple):
    """What came back.

    Attributes:
        status: of HTTP; 0 if the connection was closed without an answer.
        text: of the answer, and of what the page would show.
    """

    status: int
    text: str


class Attacker:
    """Sends one malformed request after the other.

    Args:
        http: a client.
        server: the demo.
        events: numbers of the events, by element.
        chance: that decides on details.
    """

    def __init__(
        self, http: Any, server: Server, events: dict[str, int], chance: random.Random
    ) -> None:
        self.http, self.server, self.events, self.chance = http, server, events, chance
        self.picture = png(next(iter(examples.armenian(32).support.values()))[0])
        self.kinds: dict[str, Callable[[], Awaitable[Told]]] = {
            name.removeprefix("send_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("send_")
        }

    # --- events ---

    async def send_text_that_is_no_json(self) -> Told:
        whole = json.dumps(self._body("ask", [None] * 5))
        texts = ["", "{", whole[: self.chance.randrange(1, len(whole))], "\x00" * 50, "NaN", "[]"]
        return await self._post(f"{API}/queue/join", content=self.chance.choice(texts))

    async def send_json_nested_deep(self) -> Told:
        depth = self.chance.choice([1000, 100_000])
        return await self._post(f"{API}/queue/join", content="[" * depth + "]" * depth)

    async def send_json_that_is_large(self) -> Told:
        return await self._post(f"{API}/queue/join", content=b'"' + b"x" * 3_000_000 + b'"')

    async def send_fields_of_wrong_types(self) -> Told:
        body: dict[str, Any] = self._body("ask", [None] * 5)
        field = self.chance.choice(["data", "fn_index", "session_hash", "trigger_id", "event_data"])
        body[field] = self.chance.choice([None, "x", 1.5, -1, [[]], {"a": {}}, 10**30, True])
        return await self._event(body)

    async def send_events_that_are_none(self) -> Told:
        number = self.chance.choice([-1, 9999, 1, 6, 2**31, 2**63, -(2**63)])
        return await self._event({**self._body("ask", []), "fn_index": number})

    async def send_too_few_or_too_many_inputs(self) -> Told:
        element = self.chance.choice([*self.events])
        count = self.chance.choice([0, 1, 7, 5000])
        return await self._event(self._body(element, [None] * count))

    async def send_inputs_of_wrong_types(self) -> Told:
        wrong = [0, -1, 1e308, "x" * 10_000, [], {}, [[[]]], {"path": 1}, True, "\ud800", "<b>"]
        element = self.chance.choice(["add", "ask", "teach", "remove", "kind", "another"])
        inputs = [None, *(self.chance.choice(wrong) for _ in range(self._inputs(element) - 1))]
        return await self._event(self._body(element, inputs))

    async def send_files_of_the_machine_as_uploads(self) -> Told:
        path = self.chance.choice(
            ["/etc/passwd", "../../../etc/passwd", str(self.server.log), "/dev/zero", "/proc/self"]
        )
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        if self.chance.random() < 0.5:
            return await self._event(self._body("add", [None, "stolen", [file]]))
        return await self._event(self._body("ask", [None, "Upload", None, file, None]))

    async def send_addresses_as_uploads(self) -> Told:
        url = self.chance.choice(
            [f"{self.server.url}/config", "file:///etc/passwd", "http://169.254.169.254/"]
        )
        file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
        return await self._event(self._body("ask", [None, "Upload", None, file, None]))

    async def send_lists_of_huge_length(self) -> Told:
        file = {"path": "x.png", "meta": {"_type": "gradio.FileData"}}
        return await self._event(self._body("add", [None, "many", [file] * 5000]))

    async def send_events_whose_answers_are_not_fetched(self) -> Told:
        return await self._post(f"{API}/queue/join", json=self._body("start", [None]))

    async def send_questions_about_sessions_that_are_none(self) -> Told:
        session = self.chance.choice(["", "x" * 5000, "../..", "%00", "'; --"])
        address = self.chance.choice(["queue/data", "cancel", "reset"])
        if address == "queue/data":
            return await self._get(f"{API}/queue/data", params={"session_hash": session})
        body = {"session_hash": session, "fn_index": 0, "event_id": session}
        return await self._post(f"{API}/{address}", json=body)

    # --- files ---

    async def send_paths_out_of_the_folder(self) -> Told:
        start = self.chance.choice([f"{API}/file=", "/static/", "/assets/", "/svelte/", "/"])
        way = self.chance.choice(
            [
                "../" * 8,
                "..%2f" * 8,
                "%2e%2e/" * 8,
                "..\\" * 8,
                "//",
                "/",
                "....//" * 8,
                "%252e" * 2,
            ]
        )
        end = self.chance.choice(["etc/passwd", "proc/self/environ", "root/.ssh/id_rsa", "%00"])
        return await self._raw_get(start + way + end)

    async def send_paths_of_temporary_files(self) -> Told:
        folder = self.server.temporary
        known = [str(p) for p in (folder, self.server.log, *folder.glob("*"))]
        return await self._raw_get(f"{API}/file={self.chance.choice(known)}")

    async def send_addresses_to_fetch(self) -> Told:
        where = self.chance.choice(["proxy=", "file=", "file/"])
        return await self._raw_get(f"{API}/{where}{self.server.url}/config")

    async def send_bodies_that_are_no_upload(self) -> Told:
        kind = self.chance.choice(
            ["multipart/form-data", "multipart/form-data; boundary=", "text/plain", "\x01"]
        )
        return await self._post(
            f"{API}/upload", content=self.chance.randbytes(2000), headers={"content-type": kind}
        )

    async def send_uploads_without_names(self) -> Told:
        start = self.chance.choice(
            [
                b"",
                b"Content-Disposition: form-data\r\n",
                b'Content-Disposition: form-data; name="files"\r\n',
                b'Content-Disposition: form-data; name="files"; filename=""\r\n',
                b"X: " + b"y" * 20_000 + b"\r\n",
            ]
        )
        body = b"--b\r\n" + start + b"\r\n" + self.picture + b"\r\n--b--\r\n"
        return await self._post(f"{API}/upload", content=body, headers=_multipart())

    async def send_uploads_with_wrong_names(self) -> Told:
        name = self.chance.choice(
            ["../../../tmp/evil.png", "/etc/evil.png", "..", "a" * 5000, "\u202e.png", "x\x00.png"]
        )
        parts = [("files", (name, self.picture))]
        return await self._post(f"{API}/upload", files=parts)

    async def send_too_many_files(self) -> Told:
        parts = [("files", (f"{index}.png", self.picture)) for index in range(500)]
        return await self._post(f"{API}/upload", files=parts)

    async def send_files_that_are_too_large(self) -> Told:
        size = self.chance.choice([21, 21, 21, 110]) * 2**20
        return await self._post(f"{API}/upload", files=[("files", ("a.png", bytes(size)))])

    async def send_uploads_that_are_cut_off(self) -> Told:
        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        head = _head("POST", f"{API}/upload", [*_multipart().items(), ("content-length", "100000")])
        return await self._raw(head + body + self.picture, ends=True)

    async def send_pictures_that_are_damaged(self) -> Told:
        data = bytearray(self.picture)
        kind = self.chance.choice(["cut", "noise", "bomb", "empty"])
        if kind == "cut":
            data = data[: self.chance.randrange(8, len(data))]
        elif kind == "noise":
            data[30:] = self.chance.randbytes(200)
        elif kind == "bomb":
            data = bytearray(_bomb())
        else:
            data = bytearray()
        found = await self.http.post(f"{API}/upload", files=[("files", ("a.png", bytes(data)))])
        if found.status_code != 200:
            return Told(found.status_code, found.text)
        meta = {"_type": "gradio.FileData"}
        file = {"path": found.json()[0], "orig_name": "a.png", "meta": meta}
        told = await self._event(self._body("add", [None, "damaged", [file]]))
        return Told(told.status, told.text.replace(found.json()[0], ""))

    async def send_drawings_with_huge_numbers(self) -> Told:
        fields = {
            "type": self.chance.choice(["layer", "composite", "x"]),
            "index": self.chance.choice(["10000000000", "-1", "999999999", "x", "1_0", "9" * 5000]),
            "id": "i",
            "component_id": self.chance.choice(["23", "9", "x", "-1"]),
            "session_hash": "s",
            "fn_name": self.chance.choice(["accept_blobs", "__init__", "postprocess"]),
        }
        if self.chance.random() < 0.3:
            fields["index"], fields["id"] = "0", self.chance.randbytes(6).hex()
            fields["component_id"], fields["fn_name"] = "23", "accept_blobs"
        parts = [("files", ("a.png", self.picture))]
        return await self._post(f"{API}/component_server", data=fields, files=parts)

    # --- HTTP itself ---

    async def send_methods_that_are_wrong(self) -> Told:
        method = self.chance.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
        path = self.chance.choice(["/", "/config", f"{API}/upload", f"{API}/queue/join"])
        return await self._told(self.http.request(method, path))

    async def send_questions_for_what_is_not_served(self) -> Told:
        path = self.chance.choice(
            [
                *("/docs", "/openapi.json", "/monitoring", "/login", "/pwa_icon/9999999", "/x"),
                *(
                    f"{API}/{name}"
                    for name in (
                        *("dev/reload", "vibe-code", "runs", "deep_link", "token", "user", "x"),
                        *("stream/a/b/1/playlist.m3u8", "custom_component/x/y/z/w", "login_check"),
                    )
                ),
            ]
        )
        return await self._get(path)

    async def send_hosts_of_others(self) -> Told:
        host = self.chance.choice(["evil.example", "127.0.0.1.evil.example", "", "a" * 3000])
        return await self._get("/config", headers={"host": host})

    async def send_bytes_that_are_no_http(self) -> Told:
        start = self.chance.choice([b"", b"GET ", b"POST / HTTP/9.9\r\n", b"\x16\x03\x01"])
        return await self._raw(start + self.chance.randbytes(500) + b"\r\n\r\n", ends=True)

    async def send_headers_that_are_too_large(self) -> Told:
        head = _head("GET", "/config", [("x", "y" * 200_000)])
        return await self._raw(head, ends=True)

    async def send_lengths_that_are_wrong(self) -> Told:
        length = self.chance.choice(["-1", "x", "99999999999999999999", "1e3"])
        headers = [("content-type", "application/json"), ("content-length", length)]
        return await self._raw(_head("POST", f"{API}/queue/join", headers) + b"{}", ends=True)

    async def send_chunks_that_are_broken(self) -> Told:
        headers = [("transfer-encoding", "chunked"), ("content-type", "application/json")]
        chunk = self.chance.choice([b"zz\r\n{}\r\n", b"ffffffff\r\n{}", b"-1\r\n\r\n"])
        return await self._raw(_head("POST", f"{API}/queue/join", headers) + chunk, ends=True)

    # --- how ---

    def _inputs(self, element: str) -> int:
        return {"add": 3, "ask": 5, "teach": 6, "remove": 2, "kind": 2, "another": 2}[element]

    def _body(self, element: str, inputs: list[Any]) -> dict[str, Any]:
        session = self.chance.randbytes(6).hex()
        return {"data": inputs, "fn_index": self.events[element], "session_hash": session}

    async def _event(self, body: dict[str, Any]) -> Told:
        text = json.dumps(body)
        found = await self.http.post(
            f"{API}/queue/join", content=text, headers={"content-type": "application/json"}
        )
        if found.status_code != 200 or not isinstance(body["session_hash"], str):
            return Told(found.status_code, found.text)
        told = await finished(self.http, body["session_hash"], found.json()["event_id"])
        return Told(200, told)

    async def _post(self, path: str, **content: Any) -> Told:
        return await self._told(self.http.post(path, **content))

    async def _get(self, path: str, **more: Any) -> Told:
        return await self._told(self.http.get(path, **more))

    async def _told(self, waiting: Awaitable[Any]) -> Told:
        try:
            found = await waiting
        except Exception as error:
            if "closed" in str(error).lower() or "disconnected" in str(error).lower():
                return Told(0, "")
            if type(error).__name__ in ("ReadError", "WriteError", "LocalProtocolError"):
                return Told(0, "")
            raise
        uploaded = found.request.url.path == f"{API}/upload" and found.status_code == 200
        return Told(found.status_code, "" if uploaded else found.text)

    async def _raw_get(self, path: str) -> Told:
        return await self._raw(_head("GET", path, [("connection", "close")]))

    async def _raw(self, data: bytes, ends: bool = False) -> Told:
        """Send bytes; with ``ends``, say that there are no more, and read what comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        answer = b""
        with suppress(OSError, asyncio.TimeoutError):
            writer.write(data)
            await writer.drain()
            if ends:
                writer.write_eof()
            answer = await asyncio.wait_for(reader.read(2**20), 30)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        found = re.match(rb"HTTP/1\.\d (\d+)", answer)
        return Told(int(found[1]) if found else 0, answer.decode(errors="replace"))


def _head(method: str, path: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *(f"{n}: {v}" for n, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def _multipart() -> dict[str, str]:
    return {"content-type": "multipart/form-data; boundary=b"}


def _bomb() -> bytes:
    """A small PNG file of 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        ends = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + ends

    side = (20_000).to_bytes(4, "big")
    made = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    made.seek(0, io.SEEK_END)
    made.write(chunk(b"IHDR", side + side + bytes([1, 0, 0, 0, 0])))
    made.write(chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b""))
    return made.getvalue()
