"""The page of the demo in Gradio: classes, a picture, and the answer."""

import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitraining.demo import examples, view
from omnitraining.demo.drawing import centered
from omnitraining.demo.guard import IDLE, Files
from omnitraining.demo.session import (
    CLASSES,
    IMAGES,
    MEGABYTES,
    MEGAPIXELS,
    Picture,
    Session,
)
from omnitraining.errors import InputError
from omnitraining.learner import TrainedModel

SWEEP = 20  # seconds between two looks for old temporary files and for memory to give back
VISITORS = 60  # whose classes are kept at a time
WAITING = 2 * VISITORS  # requests
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
FAILED = "The program failed at this. The terminal in which it runs says why."


def build(trained: TrainedModel, files: Files) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
        trained: a trained model of images.
        files: temporary ones, as uploads and files to download.

    Raises:
        InputError: Gradio is missing.
    """
    gr = find_gradio()
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
                answer = gr.HTML(view.prediction(None), padding=False, elem_id="answer")
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
                return session.read([centered(drawn)])[0]
            if kind == UPLOAD:
                if path is None:
                    raise InputError("Choose a picture first.")
                return session.read([Path(path)])[0]
            return _example(session, turn)

        def on_start(session: Session | None) -> dict[Any, Any]:
            session = session or Session(trained)
            for title, images in examples.armenian(session.side).support.items():
                if title not in session.pictures:
                    session.add(title, [_gray(image) for image in images])
            picture = _example(session, 0)
            return {
                **renewed(session),
                added: view.message("Five Armenian letters were added, five pictures of each."),
                answer: view.prediction(session.predict(picture)),
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
            return {**renewed(session), added: gone, answer: view.prediction(None)}

        def on_clear(session: Session | None) -> dict[Any, Any]:
            session = session or Session(trained)
            session.clear()
            gone = view.message("All classes were removed.")
            return {**renewed(session), added: gone, answer: view.prediction(None)}

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
            found = session.predict(_example(session, number + 1))
            return {**made, kept: session, answer: view.prediction(found)}

        def on_ask(session: Session | None, *query: Any) -> dict[Any, Any]:
            session = session or Session(trained)
            found = session.predict(chosen(session, *query))
            return {kept: session, answer: view.prediction(found)}

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


def _example(session: Session, turn: int) -> Picture:
    queries = examples.armenian(session.side).queries
    return _gray(queries[turn % len(queries)])


def _gray(image: NDArray[np.uint8]) -> Picture:
    return np.array(np.broadcast_to(image, (3, *image.shape)))


def _guarded(work: Callable[..., dict[Any, Any]], place: Any) -> Callable[..., dict[Any, Any]]:
    """A handler whose errors are a sentence on the page."""

    def handler(*inputs: Any) -> dict[Any, Any]:
        try:
            return {place: view.message(""), **work(*inputs)}
        except InputError as error:
            return {place: view.message(str(error), wrong=True)}
        except Exception as error:
            # Without what the error says, which may hold what a visitor wrote.
            traceback.print_tb(error.__traceback__)
            sys.stderr.write(f"{type(error).__name__}\n")
            return {place: view.message(FAILED, wrong=True)}

    return handler


def find_gradio() -> Any:
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError(
            "the demo needs gradio, which is not installed: pip install 'omnitraining[demo]'"
        ) from error
