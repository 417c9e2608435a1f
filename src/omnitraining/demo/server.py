"""The server of the demo, on this machine's loopback address."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from omnitraining.demo.folder import locked_folder
from omnitraining.demo.page import Page, find_gradio
from omnitraining.demo.protection import MAX_BODY, Protection
from omnitraining.errors import InputError
from omnitraining.learner import TrainedModel

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]
PORTS = range(7860, 7960)
CONNECTIONS = 500
SESSIONS = 60  # that are kept
REFUSED = {
    "files": "Pictures only",
    "file": "Pictures only",
    "folder": "A folder",
    "zip": "A zip file only",
}
"""What may be chosen, where the browser refuses a file; by element."""


def serve(trained: TrainedModel, port: int | None, announce: Callable[[str], None]) -> None:
    """Show the page until the program is interrupted.

    Args:
        trained: a trained model of images.
        port: of the server; a free one from 7860 on if not given.
        announce: is called with the address.

    Raises:
        InputError: Gradio is missing, the port is taken, or the model is one of curves.
    """
    _ = trained.image_inputs  # refuses a model of curves
    with locked_folder() as folder:
        os.environ.update(GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False")
        page = Page(trained, folder)
        server = import_module("uvicorn")
        with closing(_listening(port)) as listening:
            number = listening.getsockname()[1]
            # Gradio's launch() fails if a busy machine takes 3 seconds to serve the first request.
            config = server.Config(
                application(page.blocks, number),
                log_level="critical",
                timeout_graceful_shutdown=1,
                limit_concurrency=CONNECTIONS,
            )
            announce(f"http://{HOST}:{number}/")
            server.Server(config).run(sockets=[listening])


def _listening(port: int | None) -> socket.socket:
    """A socket that takes connections, which wait until they are served."""
    if port is not None and not 1 <= port <= 65535:
        raise InputError(f"--port is {port}: it must be from 1 to 65535")
    for number in PORTS if port is None else (port,):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, number))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            reason = error.strerror
    which = f"port {port}" if port else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise InputError(f"the page cannot be served at {which}: {reason}; choose another with --port")


def application(page: Any, port: int) -> Any:
    """The web application of a page.

    Args:
        page: a `gradio.Blocks`.
        port: of the server.
    """
    gradio, fastapi = find_gradio(), import_module("fastapi")
    middleware = import_module("starlette.middleware").Middleware
    trusted_host = import_module("starlette.middleware.trustedhost").TrustedHostMiddleware
    page.state_session_capacity = SESSIONS
    # Only then does Gradio check that files of an event are uploaded ones; launch() would set it.
    page.has_launched = True
    app = fastapi.FastAPI(
        openapi_url=None,
        middleware=[middleware(trusted_host, allowed_hosts=NAMES), middleware(Protection)],
    )
    return gradio.mount_gradio_app(
        app,
        page,
        "/",
        server_name=HOST,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_BODY,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gradio.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css="\n".join([Path(__file__).with_name("style.css").read_text("utf-8"), *_refusals()]),
    )


def _refusals() -> list[str]:
    """Style rules with the text where the browser refuses a file."""
    most = f"of {MAX_BODY // 2**20} MB at most. Close this, and choose another."
    return [
        f'#{place} .error::after {{ content: "{what}, {most}"; }}'
        for place, what in REFUSED.items()
    ]
