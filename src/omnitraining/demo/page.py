"""The page of the demo in Gradio, and the server on this machine's loopback.

Nothing leaves the machine: the server listens on 127.0.0.1 alone, and a content security policy
tells the browser to load and send nothing elsewhere.
"""

import ctypes
import gc
import os
import shutil
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from omnitraining.demo import examples, view
from omnitraining.demo.guard import IDLE, LAYERS, TOGETHER, Files, Guard
from omnitraining.demo.session import (
    CLASSES,
    IMAGES,
    MEGABYTES,
    MEGAPIXELS,
    Picture,
    Session,
)
from omnitraining.errors import InputError
from omnitraining.learner import Trained

HOST = "127.0.0.1"
PORTS = range(7860, 7960)
SWEEP = 20  # seconds between two looks for old temporary files and for memory to give back
VISITORS = 60  # whose classes are kept at a time
WAITING = 2 * VISITORS  # requests
UNREAD = 20  # answers that one visitor has not fetched
CONNECTIONS = 500
DRAW, UPLOAD, EXAMPLE = "Draw", "Upload", "Example"
CANVAS = 280  # pixels
SHOW = """() => {
    const wrong = document.querySelector("#asked .omni-wrong");
    (wrong || document.getElementById("answer")).scrollIntoView({ block: "nearest" });
}"""  # on a phone the answer would be out of sight
PICK = """() => {
    let tries = 100;
    const pick = () => {
        const brush = document.querySelector('#drawing button[aria-label="Brush"]');
        if (brush) brush.click();
        else if (tries--) setTimeout(pick, 100);
    };
    pick();
}"""  # without it one would have to choose the brush before drawing
REFUSED = (
    f"Pictures only, {IMAGES} at a time, of {MEGABYTES} MB at most, {TOGETHER} MB together. "
    "Close this, and choose others."
)
FAILED = "The program failed at this. The terminal in which it runs says why."


def serve(trained: Trained, port: int | None, say: Callable[[str], None]) -> None:
    """Show the page until the program is interrupted.

    Args:
        trained: a trained model of images.
        port: of the server; a free one from 7860 on if not given.
        say: is told the address.

    Raises:
        InputError: Gradio is missing, the port is taken, or the model is one of curves.
    """
    Session(trained)  # refuses a model of curves
    with tempfile.TemporaryDirectory(prefix="omni-demo-") as folder:
        os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False")
        files = Files(Path(folder))
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


def build(trained: Trained, files: Files) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
        trained: a trained model of images.
        files: temporary ones, as uploads and files to download.

    Raises:
        InputError: Gradio is missing.
    """
    gr = _gradio()
    name = trained.name
    with gr.Blocks(
        title=f"Omni-Training: {name}", analytics_enabled=False, delete_cache=(SWEEP, IDLE)
    ) as page:
        kept = gr.State(None, time_to_live=IDLE)
        turn = gr.State(0)
        gr.HTML(
            "<h1>Teach a few classes, then ask</h1><p>Give two or more classes a few pictures "
            "each. Omni-Training then says of a new picture which class it is, and what each of "
            "its three flows thinks. Nothing leaves this machine.</p>",
            padding=False,
            elem_classes="omni-head",
        )
        start = gr.Button("Show me an example", variant="primary", elem_id="start")
        with gr.Row():
            with gr.Column(min_width=320):
                gr.HTML("<h2>1. Classes</h2>", padding=False, elem_classes="omni-step")
                shown = gr.HTML(view.classes({}), padding=False, elem_id="classes")
                class_name = gr.Textbox(
                    label="Name of the class", placeholder="as: cat", max_lines=1, elem_id="name"
                )
                uploads = gr.File(
                    label="Pictures of it",
                    file_count="multiple",
                    file_types=["image"],
                    height=150,
                    elem_id="files",
                )
                add = gr.Button("Add to the class", elem_id="add")
                added = gr.HTML(view.message(""), padding=False, elem_id="added")
                with gr.Accordion("Remove a class, or all", open=False):
                    doomed = gr.Dropdown([], label="Class to remove", elem_id="doomed")
                    with gr.Row():
                        remove = gr.Button("Remove this class", elem_id="remove")
                        clear = gr.Button("Remove all", elem_id="clear")
            with gr.Column(min_width=320):
                gr.HTML("<h2>2. Picture</h2>", padding=False, elem_classes="omni-step")
                kind = gr.Radio(
                    [DRAW, UPLOAD, EXAMPLE], value=DRAW, label="Where from", elem_id="kind"
                )
                drawing = gr.Sketchpad(
                    label="Draw here",
                    type="pil",
                    canvas_size=(CANVAS, CANVAS),
                    fixed_canvas=True,
                    height=CANVAS + 60,
                    layers=False,
                    transforms=(),
                    brush=gr.Brush(default_size=9, colors=["#000000"], color_mode="fixed"),
                    buttons=[],
                    elem_id="drawing",
                )
                file = gr.File(
                    label="A picture",
                    file_types=["image"],
                    height=150,
                    visible=False,
                    elem_id="file",
                )
                example = gr.HTML(visible=False, padding=False, elem_id="example")
                another = gr.Button("Another example", visible=False, elem_id="another")
                ask = gr.Button("Which class is it?", variant="primary", elem_id="ask")
                asked = gr.HTML(view.message(""), padding=False, elem_id="asked")
                with gr.Accordion("Or add this picture to a class", open=False, elem_id="teaching"):
                    target = gr.Dropdown(
                        [],
                        label="Class, an old or a new one",
                        allow_custom_value=True,
                        elem_id="target",
                    )
                    teach = gr.Button("Add the picture", elem_id="teach")
                gr.HTML("<h2>3. Answer</h2>", padding=False, elem_classes="omni-step")
                answer = gr.HTML(view.answer(None), padding=False, elem_id="answer")
                with gr.Accordion("Keep what was learned", open=False, elem_id="keeping"):
                    with gr.Row():
                        save = gr.Button("As a learner", elem_id="save")
                        onnx = gr.Button("As ONNX (slow)", elem_id="onnx")
                    saved = gr.HTML(view.message(""), padding=False, elem_id="saved")
                    made = gr.File(
                        label="File to download",
                        interactive=False,
                        visible=False,
                        elem_id="made",
                    )
        gr.HTML(
            f"<p>Model: {name}. At most {CLASSES} classes of {IMAGES} pictures; {MEGABYTES} MB and "
            f"{MEGAPIXELS} million pixels each. Pictures are shown as the network gets them. What "
            "you give is forgotten when the program ends, or after an hour.</p>",
            padding=False,
            elem_classes="omni-foot",
        )

        def renewed(session: Session) -> dict[Any, Any]:
            """All that shows the classes."""
            names = [*session.pictures]
            return {
                kept: session,
                shown: view.classes(session.pictures),
                doomed: gr.update(choices=names, value=None),
                target: gr.update(choices=names),
                made: gr.update(value=None, visible=False),
                saved: view.message(""),
            }

        def chosen(
            session: Session, kind: str, drawn: dict[str, Any] | None, path: str | None, turn: int
        ) -> Picture:
            """The picture to ask about."""
            if kind == DRAW:
                return session.read([centred(drawn)])[0]
            if kind == UPLOAD:
                if path is None:
                    raise InputError("Choose a picture first.")
                return session.read([Path(path)])[0]
            return _example(session, turn)

        def on_start(session: Session | None) -> dict[Any, Any]:
            session = session or Session(trained)
            for title, images in examples.armenian(session.side).support.items():
                if title not in session.pictures:
                    session.add(title, [_grey(image) for image in images])
            picture = _example(session, 0)
            return {
                **renewed(session),
                added: view.message("Five Armenian letters were added, five pictures of each."),
                answer: view.answer(session.ask(picture)),
                **on_kind(EXAMPLE, 0),
                kind: EXAMPLE,
                turn: 0,
                asked: view.message(""),
            }

        def on_add(session: Session | None, name: str, paths: list[str] | None) -> dict[Any, Any]:
            session = session or Session(trained)
            read = session.read([Path(path) for path in paths or []])
            session.add(name, read)
            files.used(map(Path, paths or []))
            name = " ".join(name.split())
            words = f"“{name}” now has {len(session.pictures[name])} pictures."
            if len(session.pictures) < 2:
                words += " Add another class."
            return {
                **renewed(session),
                added: view.message(words),
                class_name: "",
                uploads: None,
            }

        def on_remove(session: Session | None, name: str | None) -> dict[Any, Any]:
            session = session or Session(trained)
            session.remove(name or "")
            gone = view.message(f"“{name}” was removed.")
            return {**renewed(session), added: gone, answer: view.answer(None)}

        def on_clear(session: Session | None) -> dict[Any, Any]:
            session = session or Session(trained)
            session.clear()
            gone = view.message("All classes were removed.")
            return {**renewed(session), added: gone, answer: view.answer(None)}

        def on_kind(kind: str, turn: int) -> dict[Any, Any]:
            picture = view.picture(_example(Session(trained), turn)) if kind == EXAMPLE else ""
            return {
                # Hidden and not taken away, so that the drawing and the chosen brush stay.
                drawing: gr.update(visible=True if kind == DRAW else "hidden"),
                file: gr.update(visible=kind == UPLOAD),
                example: gr.update(visible=kind == EXAMPLE, value=picture),
                another: gr.update(visible=kind == EXAMPLE),
            }

        def on_another(session: Session | None, number: int) -> dict[Any, Any]:
            session = session or Session(trained)
            made = {turn: number + 1, example: view.picture(_example(session, number + 1))}
            if len(session.pictures) < 2:
                return made
            found = session.ask(_example(session, number + 1))
            return {**made, kept: session, answer: view.answer(found)}

        def on_ask(session: Session | None, *query: Any) -> dict[Any, Any]:
            session = session or Session(trained)
            found = session.ask(chosen(session, *query))
            return {kept: session, answer: view.answer(found)}

        def on_teach(session: Session | None, name: str | None, *query: Any) -> dict[Any, Any]:
            session = session or Session(trained)
            session.add(name or "", [chosen(session, *query)])
            words = f"The picture was added to “{' '.join((name or '').split())}”."
            return {
                **renewed(session),
                asked: view.message(words),
                target: gr.update(value=None, choices=[*session.pictures]),
            }

        def written(write: Callable[[Path], Path], words: str) -> dict[Any, Any]:
            """A file to download, in a folder of its own."""
            if not files.has_room():
                raise InputError("Too many files are kept for now. Try again later.")
            place = Path(tempfile.mkdtemp(dir=files.folder))
            try:
                path = write(place)
            except BaseException:
                shutil.rmtree(place)
                raise
            return {made: gr.update(value=str(path), visible=True), saved: view.message(words)}

        def on_save(session: Session | None) -> dict[Any, Any]:
            session = session or Session(trained)
            return written(session.save, "Ask it with: omni predict classes.learner IMAGE ...")

        def on_onnx(session: Session | None) -> dict[Any, Any]:
            session = session or Session(trained)
            return written(session.save_onnx, "Any program that reads ONNX can use it.")

        query = [kind, drawing, file, turn]
        lists = [kept, shown, doomed, target, made, saved]
        views = [drawing, file, example, another]

        def on(event: Any, work: Callable[..., Any], inputs: Any, place: Any, outputs: Any) -> Any:
            """Bind an event; what goes wrong is said in a place of the page."""
            return event(
                _guarded(work, place),
                inputs,
                [place, *(each for each in outputs if each is not place)],
                api_visibility="private",
                concurrency_id="model",
                concurrency_limit=1,
                show_progress="minimal",
            )

        on(start.click, on_start, [kept], added, [*lists, *views, kind, turn, answer, asked]).then(
            None, js=SHOW
        )
        on(
            add.click,
            on_add,
            [kept, class_name, uploads],
            added,
            [*lists, class_name, uploads],
        )
        on(remove.click, on_remove, [kept, doomed], added, [*lists, answer])
        on(clear.click, on_clear, [kept], added, [*lists, answer])
        on(kind.input, on_kind, [kind, turn], asked, views)
        page.load(None, js=PICK)
        on(another.click, on_another, [kept, turn], asked, [kept, turn, example, answer]).then(
            None, js=SHOW
        )
        on(ask.click, on_ask, [kept, *query], asked, [kept, answer]).then(None, js=SHOW)
        on(teach.click, on_teach, [kept, target, *query], asked, lists)
        on(save.click, on_save, [kept], saved, [made])
        on(onnx.click, on_onnx, [kept], saved, [made])
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    return page


def centred(drawn: dict[str, Any] | None) -> Image.Image:
    """What was drawn, black on white, in the middle of a square with a margin.

    Args:
        drawn: value of a sketchpad, whose "composite" is what was drawn on nothing.

    Raises:
        InputError: nothing was drawn.
    """
    image: Image.Image | None = drawn["composite"] if drawn else None
    ink = None if image is None else _ink(image)
    box = None if ink is None else ink.getbbox()
    if ink is None or box is None:
        raise InputError("Draw something first.")
    ink = ink.crop(box)
    side = round(1.3 * max(ink.size))
    sheet = Image.new("L", (side, side))
    sheet.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return ImageOps.invert(sheet)


def _ink(image: Image.Image) -> Image.Image:
    """How dark an image is where it is opaque."""
    rgba = image.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return ImageOps.invert(white.convert("L"))


def _example(session: Session, turn: int) -> Picture:
    queries = examples.armenian(session.side).queries
    return _grey(queries[turn % len(queries)])


def _grey(image: NDArray[np.uint8]) -> Picture:
    return np.array(np.broadcast_to(image, (3, *image.shape)))


def _guarded(work: Callable[..., dict[Any, Any]], place: Any) -> Callable[..., dict[Any, Any]]:
    """A handler whose errors are a sentence on the page."""

    def handler(*inputs: Any) -> dict[Any, Any]:
        try:
            return {place: view.message(""), **work(*inputs)}
        except InputError as error:
            return {place: view.message(str(error), wrong=True)}
        except Exception:
            traceback.print_exc()
            return {place: view.message(FAILED, wrong=True)}

    return handler


def _gradio() -> Any:
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError(
            "the demo needs gradio, which is not installed: pip install 'omnitraining[demo]'"
        ) from error


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
    """The web application; other names of this machine are refused, and much else is."""
    gradio, fastapi = _gradio(), import_module("fastapi")
    starlette = import_module("starlette.middleware")
    hosts = import_module("starlette.middleware.trustedhost")
    page.state_session_capacity = VISITORS
    events = {number: len(event.inputs) for number, event in page.fns.items() if event.fn}
    whole = fastapi.FastAPI(
        openapi_url=None,
        middleware=[
            starlette.Middleware(hosts.TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
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
        css=f"{Path(__file__).with_name('style.css').read_text()}\n"
        f'#files .error::after, #file .error::after {{ content: "{REFUSED}"; }}',
    )


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
