"""Protection of the demo's server from other pages in the user's browser.

The server listens on the loopback address alone. What can still reach it are pages of other sites
that are open in the same browser: they may send requests to it and, after rebinding their name to
this machine, read the responses.
"""

from collections.abc import Mapping
from typing import Any

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' "
    "blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'"
)
"""The page may load from and send to its own server only."""

MAX_BODY = 500 * 2**20
"""Bytes of a request: the files of one upload."""


class Protection:
    """ASGI middleware that refuses requests of other origins and large ones.

    It adds a content security policy to every response. Requests of other names of this machine
    are refused by Starlette's `TrustedHostMiddleware`, and large files by Gradio.

    Args:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Handle a request as ASGI defines it."""

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        refusal = _refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send_with_policy)
            return
        status, text = refusal
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", str(len(text)).encode()),
        ]
        await send_with_policy(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": text.encode()})


def _refusal(scope: Mapping[str, Any]) -> tuple[int, str] | None:
    """Status and text of the response to a request that is refused."""
    headers = {name: value for name, value in scope["headers"]}
    own = {scheme + headers.get(b"host", b"") for scheme in (b"http://", b"https://")}
    foreign = headers.get(b"sec-fetch-site") not in (None, b"same-origin", b"none")
    foreign = foreign or headers.get(b"origin") not in (None, *own)
    is_link = scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
    if foreign and not is_link:
        return 403, "Pages of other servers may only link to this one."
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit() or int(length) > MAX_BODY:
        return 413, f"A request must have a length, of {MAX_BODY // 2**20} MB at most."
    return None
