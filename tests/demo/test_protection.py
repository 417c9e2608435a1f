"""Requests from pages of other sites and large ones are refused; without gradio."""

import asyncio
from typing import Any

import pytest

from omnitraining.demo.protection import MAX_BODY, POLICY, Protection

UPLOAD = "/gradio_api/upload"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


def status(method: str, path: str, headers: dict[str, str]) -> int:
    """Status of a response, which has the content security policy."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    lines = [(n.encode(), v.encode()) for n, v in {"host": "127.0.0.1:7860", **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": lines}
    asyncio.run(Protection(inner)(scope, None, send))
    assert (b"content-security-policy", POLICY.encode()) in sent[0]["headers"]
    assert (sent[1]["body"] == b"served") == (sent[0]["status"] == 200)
    found: int = sent[0]["status"]
    return found


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8888"},
        {"origin": "http://localhost:7860"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_origins_reach_nothing(headers: dict[str, str]) -> None:
    paths = [("POST", UPLOAD), ("POST", "/gradio_api/component_server"), ("GET", "/config")]
    paths += [("POST", "/gradio_api/queue/join"), ("POST", "/"), ("OPTIONS", UPLOAD)]
    assert {status(method, path, headers) for method, path in paths} == {403}
    assert status("GET", "/", headers) == 200  # by a link


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
def test_the_page_itself_and_programs_reach_the_server(headers: dict[str, str]) -> None:
    assert status("POST", UPLOAD, headers) == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-length": str(MAX_BODY)}, 200),
        ({"content-length": str(MAX_BODY + 1)}, 413),
        ({"content-length": "-1"}, 413),
        ({"transfer-encoding": "chunked"}, 413),
    ],
)
def test_large_requests_are_refused(headers: dict[str, str], expected: int) -> None:
    assert status("POST", UPLOAD, headers) == expected
