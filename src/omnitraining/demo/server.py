"""The server of the demo, on this machine's loopback.

Nothing leaves the machine: the server listens on 127.0.0.1 alone, and a content security policy
tells the browser to load and send nothing elsewhere.
"""

import ctypes
import gc
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from typing import Any

from omnitraining.demo.folder import own_folder
from omnitraining.demo.guard import LAYERS, TOGETHER, Files, Guard
from omnitraining.demo.page import SWEEP, VISITORS, build, find_gradio
from omnitraining.demo.session import IMAGES, MEGABYTES, Session
from omnitraining.errors import InputError
from omnitraining.learner import TrainedModel

HOST = "127.0.0.1"
PORTS = range(7860, 7960)
UNREAD = 20  # answers that one visitor has not fetched
CONNECTIONS = 500
REFUSED = (
    f"Pictures only, {IMAGES} at a time, of {MEGABYTES} MB at most, {TOGETHER} MB together. "
    "Close this, and choose others."
)


def serve(trained: TrainedModel, port: int | None, say: Callable[[str], None]) -> None:
    """Show the page until the program is interrupted.

    Args:
        trained: a trained model of images.
        port: of the server; a free one from 7860 on if not given.
        say: is told the address.

    Raises:
        InputError: Gradio is missing, the port is taken, or the model is one of curves.
    """
    Session(trained)  # refuses a model of curves
    with own_folder() as folder:
        os.environ.update(GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False")
        files = Files(folder)
        page = build(trained, files)
        server = import_module("uvicorn")
        with closing(_listening(port)) as listening:
            number = listening.getsockname()[1]
            # Not Gradio's own launch, which gives up on a machine that is too busy to answer it.
            config = server.Config(
                _application(page, number, files),
                log_level="critical",
                timeout_graceful_shutdown=1,
                limit_concurrency=CONNECTIONS,
            )
            say(f"http://{HOST}:{number}/")
            # Sessions that end are cycles. Python looks for those the more rarely, the more there
            # is to look through, which is mostly what stays: torch, Gradio, and the model.
            gc.collect()
            gc.freeze()
            with _sweeping(files):
                server.Server(config).run(sockets=[listening])


@contextmanager
def _sweeping(files: Files) -> Iterator[None]:
    """Delete old files, and give memory back, while the server runs."""
    stop = Event()

    def sweep() -> None:
        while not stop.wait(SWEEP):
            files.sweep()
            gc.collect()
            # The C library keeps what is freed between other things, page by page more and more.
            with suppress(OSError, AttributeError):  # it is not glibc
                ctypes.CDLL(None).malloc_trim(0)

    thread = Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _listening(port: int | None) -> socket.socket:
    """A socket that takes connections, which wait until they are served."""
    if port is not None and not 1 <= port <= 65535:
        raise InputError(f"--port is {port}: it must be from 1 to 65535")
    for number in PORTS if port is None else (port,):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((HOST, number))
            made.listen()
            return made
        except OSError as error:
            made.close()
            reason = error.strerror
    which = f"port {port}" if port else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise InputError(f"the page cannot be served at {which}: {reason}; choose another with --port")


def _application(page: Any, port: int, files: Files) -> Any:
    """The web application, behind its guard."""
    gradio, fastapi = find_gradio(), import_module("fastapi")
    starlette = import_module("starlette.middleware")
    page.state_session_capacity = VISITORS
    _silence(page, gradio.Error)
    events = {number: len(event.inputs) for number, event in page.fns.items() if event.fn}
    whole = fastapi.FastAPI(
        openapi_url=None,
        middleware=[
            starlette.Middleware(Guard, files=files, events=events, tidy=partial(_tidy, page)),
        ],
    )
    return gradio.mount_gradio_app(
        whole,
        page,
        "/",
        server_name=HOST,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MEGABYTES * 2**20,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gradio.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=f"{Path(__file__).with_name('style.css').read_text('utf-8')}\n"
        f'#files .error::after, #file .error::after {{ content: "{REFUSED}"; }}',
    )


def _silence(page: Any, quiet: Callable[..., Exception]) -> None:
    """Let Gradio say nothing of inputs that it cannot read, which it would print as they were sent.

    Args:
        page: as `build` made it, whose handlers raise nothing.
        quiet: makes the error that Gradio need not print.
    """
    process = page.process_api

    async def silent(*args: Any, **options: Any) -> Any:
        try:
            return await process(*args, **options)
        except Exception as error:
            raise quiet("This input cannot be read.", print_exception=False) from error

    page.process_api = silent


def _tidy(page: Any, session: str) -> None:
    """Drop what visitors left behind: answers that were never fetched, drawings never asked about.

    Gradio keeps both for as long as it runs, up to 2,000 visitors' answers.

    Args:
        page: as `build` made it.
        session: that asks now; the others come before it, in the order in which they asked last.
    """
    queue = page._queue
    messages, asked = queue.pending_messages_per_session, queue.pending_event_ids_session
    waiting = queue.event_ids_to_events
    if session in asked:
        asked[session] = asked.pop(session)
    done = [name for name, events in asked.items() if not any(e in waiting for e in events)]
    unread = [name for name in done if len(asked[name]) > UNREAD]
    for name in {*unread, *done[: max(0, len(done) - VISITORS)]}:
        messages.pop(name, None)
        for event in asked.pop(name, ()):
            waiting.pop(event, None)
    sessions = page.app.state_holder.session_data.values() if hasattr(page, "app") else ()
    blocks = [block for state in sessions for block in state.blocks_config.blocks.values()]
    for block in [*page.blocks.values(), *blocks]:
        drawings = getattr(block, "blob_storage", {})
        for name in [*drawings][: max(0, len(drawings) - LAYERS)]:
            drawings.pop(name, None)
