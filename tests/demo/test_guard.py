"""What the demo refuses before Gradio sees it, and which uploads it keeps; without gradio."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from omnitraining.demo import guard, server
from omnitraining.demo.folder import own_folder
from omnitraining.demo.guard import DRAWING, JOIN, UPLOAD, Files, Guard
from omnitraining.demo.page import _guarded as guarded

EVENTS = {2: 3}


class Inner:
    """An application that reads the whole body, and answers with its length."""

    def __init__(self, status: int = 200, answer: bytes | None = None) -> None:
        self.status, self.answer, self.called = status, answer, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.called, size, more = True, 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            size, more = size + len(message["body"]), message["more_body"]
        body = str(size).encode() if self.answer is None else self.answer
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


def ask(
    made: Guard,
    method: str,
    path: str,
    body: Iterable[bytes] = (b"",),
    headers: dict[str, str] | None = None,
    pause: float = 0,
) -> tuple[int, str]:
    """Status and text of an answer."""
    parts, sent = [*body], list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    named = {"host": "127.0.0.1:7860", **(headers or {})}
    lines = [(n.encode(), v.encode()) for n, v in named.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": lines}
    asyncio.run(made(scope, receive, send))
    assert (b"content-security-policy", guard.POLICY.encode()) in sent[0]["headers"]
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def made(inner: Inner, tmp_path: Path) -> Guard:
    return Guard(inner, Files(tmp_path), EVENTS, lambda _: None)


def event(*inputs: Any, **changes: Any) -> list[bytes]:
    values = {"data": inputs, "fn_index": 2, "session_hash": "abc", **changes}
    return [json.dumps(values).encode()]


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/data"])
def test_what_the_page_reads_passes(made: Guard, path: str) -> None:
    assert ask(made, "GET", path)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/", 404),
        ("GET", "/gradio_api/file=/etc/passwd", 404),
        ("GET", "/gradio_api/dev/reload", 404),
        ("GET", "/gradio_api/deep_link", 404),
        ("POST", "/gradio_api/vibe-edit", 404),
        ("POST", "/login", 404),
        ("PUT", "/", 405),
        ("OPTIONS", JOIN, 405),
        ("GET", JOIN, 404),
    ],
)
def test_what_it_does_not_need_is_refused(
    made: Guard, inner: Inner, method: str, path: str, status: int
) -> None:
    assert ask(made, method, path)[0] == status
    assert not inner.called


EVIL = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}


@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8888"},
        {"origin": "http://localhost:7860"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_origins_reach_nothing(
    made: Guard, inner: Inner, headers: dict[str, str]
) -> None:
    paths = [("POST", path) for path in (UPLOAD, DRAWING, JOIN, "/gradio_api/cancel")]
    paths += [("POST", "/gradio_api/reset/"), ("GET", "/config"), ("GET", "/gradio_api/queue/data")]
    for method, path in paths:
        assert ask(made, method, path, headers=headers)[0] == 403, path
    assert not inner.called
    assert ask(made, "GET", "/", headers=headers)[0] == 200  # as of a link


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
        {"origin": "https://127.0.0.1:7860"},
        {"host": "localhost:9000", "origin": "http://localhost:9000"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_its_own_page_reaches_it_and_so_do_programs(made: Guard, headers: dict[str, str]) -> None:
    assert ask(made, "POST", UPLOAD, headers=headers)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost:x", "["])
def test_names_that_others_bind_to_this_machine_are_refused(
    made: Guard, inner: Inner, host: str
) -> None:
    for method, path in (("GET", "/"), ("POST", UPLOAD)):
        own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
        assert ask(made, method, path, headers=own)[0] == 400
    assert not inner.called


def test_files_of_the_demo_are_served_and_no_others(made: Guard, tmp_path: Path) -> None:
    assert ask(made, "GET", f"/gradio_api/file={tmp_path}/x/a.png")[0] == 200
    for path in (f"{tmp_path}/../other", f"/etc/{tmp_path}/a", str(tmp_path.parent), "x"):
        assert ask(made, "GET", f"/gradio_api/file={path}")[0] == 404, path


def test_events_pass_whole(made: Guard, tmp_path: Path) -> None:
    file = {"path": f"{tmp_path}/x/a.png", "url": None}
    body = event(None, "name", [file])
    assert ask(made, "POST", JOIN, body) == (200, str(len(body[0])))
    at = f"http://127.0.0.1:7860/gradio_api/file={tmp_path}/x/a.png"
    assert ask(made, "POST", JOIN, event(None, "name", [{**file, "url": at}]))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        [b""],
        [b"{"],
        [b"[" * 50_000],
        event(1, 2),
        event(1, 2, 3, fn_index=3),
        event(1, 2, 3, fn_index=True),
        event(1, 2, 3, fn_index=[2]),
        event(1, 2, 3, session_hash="../x"),
        event(1, 2, 3, session_hash=None),
        event(1, 2, {"path": "/etc/passwd"}),
        event(1, 2, [[{"a": {"path": 7}}]]),
        event(1, 2, {"url": "http://169.254.169.254/"}),
    ],
)
def test_events_that_are_none_are_refused(made: Guard, inner: Inner, body: list[bytes]) -> None:
    assert ask(made, "POST", JOIN, body)[0] == 400
    assert not inner.called


def test_addresses_of_others_are_no_uploads(made: Guard, tmp_path: Path) -> None:
    for start in ("http://evil.example", "http://127.0.0.1.evil.example", "http://a@evil", "//e"):
        at = f"{start}/gradio_api/file={tmp_path}/a.png"
        assert ask(made, "POST", JOIN, event(1, 2, {"url": at}))[0] == 400, at


def test_counts_are_limited(made: Guard, inner: Inner, tmp_path: Path) -> None:
    files = [{"path": f"{tmp_path}/{number}"} for number in range(21)]
    assert ask(made, "POST", JOIN, event(None, "many", files)) == (
        413,
        "At most 20 pictures at a time.",
    )
    kind = {"content-type": "multipart/form-data; boundary=bound"}
    for count, status in ((20, 200), (21, 413)):
        body = [
            b"--bou",
            b"nd\r\n\r\nx\r\n",
            *[b"--bound\r\n\r\nx\r\n"] * (count - 1),
            b"--bound--",
        ]
        found, words = ask(made, "POST", UPLOAD, body, kind)
        assert found == status, words
    assert words == "At most 20 pictures of 20 MB, 100 MB together."


def test_sizes_are_limited_whether_they_are_declared_or_not(
    made: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(made, "POST", JOIN, [b"x" * 70_000])[0] == 413
    assert ask(made, "POST", JOIN, [b"x"], {"content-length": "70000"})[0] == 413
    monkeypatch.setattr(guard, "TOGETHER", 1)
    parts = [bytes(2**19)] * 3
    assert ask(made, "POST", UPLOAD, parts) == (413, "At most 20 pictures of 20 MB, 1 MB together.")
    assert ask(made, "POST", UPLOAD, parts[:2])[0] == 200


def test_time_is_limited(made: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.2)
    monkeypatch.setattr(guard, "DRAINED", 0.1)
    slow = ask(made, "POST", UPLOAD, [b"x"] * 20, pause=0.05)
    assert slow == (408, "The request took more than 0.2 seconds.")


def test_kept_files_are_limited(
    made: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(bytes(2**20))
    assert ask(made, "POST", UPLOAD)[0] == 200
    monkeypatch.setattr(guard, "KEPT", 1)
    monkeypatch.setattr(guard, "LOOK", -1)
    assert ask(made, "POST", UPLOAD)[0] == 507


def test_failures_of_an_upload_are_the_client_s(tmp_path: Path) -> None:
    made = Guard(Inner(500), Files(tmp_path), EVENTS, lambda _: None)
    assert ask(made, "POST", UPLOAD) == (400, "The upload could not be read.")
    assert ask(made, "POST", JOIN, event(1, 2, 3))[0] == 500


@pytest.mark.parametrize(
    ("index", "status"),
    [("0", 200), ("null", 200), ("8", 400), ("-1", 400), ("9999999999", 400), ("1_0", 400)],
)
def test_layers_of_a_drawing_are_few(made: Guard, index: str, status: int) -> None:
    pytest.importorskip("python_multipart")
    pytest.importorskip("starlette")
    body = (
        f'--b\r\nContent-Disposition: form-data; name="index"\r\n\r\n{index}\r\n'
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    ).encode()
    kind = {"content-type": "multipart/form-data; boundary=b"}
    found, words = ask(made, "POST", DRAWING, [body[:30], body[30:]], kind)
    assert found == status, words
    assert status != 200 or words == str(len(body))


def test_a_picture_of_two_visitors_stays_until_both_have_used_it(tmp_path: Path) -> None:
    path = tmp_path / "x" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"same")
    files = Files(tmp_path)
    answer = json.dumps([str(path)]).encode()
    made = Guard(Inner(answer=answer), files, EVENTS, lambda _: None)
    for _ in range(2):
        assert ask(made, "POST", UPLOAD) == (200, answer.decode())
    files.used([path])
    assert path.is_file()
    files.used([path])
    assert not path.is_file()
    files.used([path])  # nothing happens


def test_old_files_and_cut_off_uploads_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    upload, cut = tmp_path / "x" / "a.png", tmp_path / "tmpabc"
    for path in (upload, cut):
        path.write_bytes(b"1234")
    files, now = Files(tmp_path), time.time()
    assert files.sweep() == 8
    monkeypatch.setattr(time, "time", lambda: now + guard.SECONDS + 2)
    assert files.sweep() == 4 and upload.is_file() and not cut.is_file()
    monkeypatch.setattr(time, "time", lambda: now + guard.IDLE + 2)
    assert files.sweep() == 0
    assert files.sweep() == 0 and not os.listdir(tmp_path)


# --- the folder ---


def test_folders_of_servers_that_were_killed_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other, kept = tmp_path / "omni-other", tmp_path / "kept"
    for made in (other, kept, tmp_path / "omni-demo-left" / "x"):
        made.mkdir(parents=True)
    (tmp_path / "omni-demo-left" / "x" / "a.png").write_bytes(b"1234")
    (tmp_path / "omni-demo-link").symlink_to(kept)
    with own_folder() as first:
        (first / "a.png").write_bytes(b"1234")
        assert not (tmp_path / "omni-demo-left").exists() and other.is_dir() and kept.is_dir()
        with own_folder() as second:  # a server beside it
            assert first != second and (first / "a.png").is_file()
        assert not second.exists()
        assert (first / "a.png").is_file()
    assert sorted(os.listdir(tmp_path)) == ["kept", "omni-demo-link", "omni-other"]


# --- what the terminal is told ---


def test_the_terminal_is_told_nothing_that_a_visitor_wrote(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Quiet(Exception):  # noqa: N818 (as Gradio's)
        def __init__(self, words: str, print_exception: bool) -> None:
            super().__init__(words)
            self.print_exception = print_exception

    class Page:
        async def process_api(self, value: str) -> str:
            if value != "right":
                raise ValueError(value)
            return value

    page = Page()
    server._silence(page, Quiet)
    assert asyncio.run(page.process_api("right")) == "right"
    with pytest.raises(Quiet, match="cannot be read") as found:
        asyncio.run(page.process_api("SECRET"))
    assert not found.value.print_exception

    def broken(value: str) -> dict[Any, Any]:
        return {}[value]

    told = guarded(broken, "place")("SECRET")
    printed = capsys.readouterr()
    assert "SECRET" not in printed.out + printed.err + str(told)
    assert "in broken" in printed.err and printed.err.endswith("KeyError\n")
