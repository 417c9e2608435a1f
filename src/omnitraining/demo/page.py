"""The page of the demo in Gradio: layout, and the handlers of its events."""

import tempfile
import traceback
from collections.abc import Callable
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitraining.demo import examples, view
from omnitraining.demo.drawing import centered
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

IDLE, CLEAN_UP = 3600, 300  # seconds until files and sessions are deleted, and between two looks
WAITING = 120  # requests that may wait
DRAW, UPLOAD, EXAMPLE = "Draw", "Upload", "Example"
CANVAS = 280  # pixels
SCROLL_TO_RESULT = """() => {
    const wrong = document.querySelector("#query-message .omni-wrong");
    (wrong || document.getElementById("result")).scrollIntoView({ block: "nearest" });
}"""  # on a phone the prediction would be out of sight
SELECT_BRUSH = """() => {
    let tries = 100;
    const pick = () => {
        const brush = document.querySelector('#drawing button[aria-label="Brush"]');
        if (brush) brush.click();
        else if (tries--) setTimeout(pick, 100);
    };
    pick();
}"""  # otherwise it must be selected before drawing
FAILED = "This failed in the program; its terminal shows the error."

Updates = dict[Any, Any]
"""New values by component, as Gradio takes them of a handler."""


class Page:
    """Components of the page as attributes, and handlers of its events as methods.

    Args:
        trained: a trained model of images.
        folder: for files to download.

    Attributes:
        blocks: the page, a `gradio.Blocks`.

    Raises:
        InputError: Gradio is missing.
    """

    def __init__(self, trained: TrainedModel, folder: Path) -> None:
        """Build the page and bind its events."""
        self.trained, self.folder, self.gr = trained, folder, find_gradio()
        self.blocks = self.gr.Blocks(
            title=f"Omni-Training: {trained.name}",
            analytics_enabled=False,
            delete_cache=(CLEAN_UP, IDLE),
        )
        with self.blocks:
            self._layout()
            self._bind()
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=1)

    # --- layout ---

    def _layout(self) -> None:
        gr = self.gr
        self.session = gr.State(None, time_to_live=IDLE)
        self.turn = gr.State(0)
        self._html(
            "<h1>Few-shot classification</h1><p>Give two or more classes a few pictures each. "
            f"{self._who()} Nothing leaves this machine.</p>",
            elem_classes="omni-head",
        )
        self.start = gr.Button("Show me an example", variant="primary", elem_id="start")
        with gr.Row():
            with gr.Column(min_width=320):
                self._layout_classes()
            with gr.Column(min_width=320):
                self._layout_query()
                self._layout_result()
        self._html(
            f"<p>Model: {escape(self.trained.name)}. At most {CLASSES} classes of {IMAGES} "
            f"pictures; {MEGABYTES} MB and {MEGAPIXELS} million pixels each. Pictures are shown "
            "as the network takes them. They are deleted when the program ends, or after an "
            "hour.</p>",
            elem_classes="omni-foot",
        )

    def _who(self) -> str:
        """What predicts, in a sentence."""
        flows = len(self.trained.model.trained_flows)
        if flows == 1:
            return f"{escape(self.trained.name)} then predicts the class of a new picture."
        return (
            "Omni-Training then predicts the class of a new picture, with each of its "
            f"{'three' if flows == 3 else flows} flows and with all of them."
        )

    def _layout_classes(self) -> None:
        gr = self.gr
        self._html("<h2>1. Classes</h2>", elem_classes="omni-step")
        self.classes = self._html(view.classes({}), elem_id="classes")
        self.class_name = gr.Textbox(
            label="Name of the class", placeholder="as: cat", max_lines=1, elem_id="name"
        )
        self.uploads = gr.File(
            label="Pictures of it",
            file_count="multiple",
            file_types=["image"],
            height=150,
            elem_id="files",
        )
        self.add = gr.Button("Add to the class", elem_id="add")
        self.class_message = self._html(view.message(""), elem_id="class-message")
        with gr.Accordion("Remove a class, or all", open=False):
            self.removed = gr.Dropdown([], label="Class to remove", elem_id="removed")
            with gr.Row():
                self.remove = gr.Button("Remove this class", elem_id="remove")
                self.clear = gr.Button("Remove all", elem_id="clear")

    def _layout_query(self) -> None:
        gr = self.gr
        self._html("<h2>2. Picture</h2>", elem_classes="omni-step")
        self.kind = gr.Radio([DRAW, UPLOAD, EXAMPLE], value=DRAW, label="Source", elem_id="kind")
        self.drawing = gr.Sketchpad(
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
        self.file = gr.File(
            label="A picture", file_types=["image"], height=150, visible=False, elem_id="file"
        )
        self.example = self._html("", visible=False, elem_id="example")
        self.another = gr.Button("Another example", visible=False, elem_id="another")
        self.predict = gr.Button("Which class is it?", variant="primary", elem_id="predict")
        self.query_message = self._html(view.message(""), elem_id="query-message")
        with gr.Accordion("Or add this picture to a class", open=False, elem_id="labeling"):
            self.target = gr.Dropdown(
                [],
                label="Class, an old or a new one",
                allow_custom_value=True,
                elem_id="target",
            )
            self.label = gr.Button("Add the picture", elem_id="label")

    def _layout_result(self) -> None:
        gr = self.gr
        self._html("<h2>3. Prediction</h2>", elem_classes="omni-step")
        self.result = self._html(view.prediction(None), elem_id="result")
        with gr.Accordion("Save the fitted model", open=False, elem_id="saving"):
            with gr.Row():
                self.save = gr.Button("As a learner", elem_id="save")
                self.onnx = gr.Button("As ONNX (slow)", elem_id="onnx")
            self.save_message = self._html(view.message(""), elem_id="save-message")
            self.download = gr.File(
                label="File to download", interactive=False, visible=False, elem_id="download"
            )

    def _html(self, html: str, **options: Any) -> Any:
        return self.gr.HTML(html, padding=False, **options)

    # --- events ---

    def _bind(self) -> None:
        query = [self.kind, self.drawing, self.file, self.turn]
        new_class = [self.class_name, self.uploads]
        shown_query = [self.drawing, self.file, self.example, self.another]
        result = [self.session, self.result]
        classes = [self.session, self.classes, self.removed, self.target, self.download]
        classes += [self.save_message]
        outcome = [*classes, self.result]
        everything = [*outcome, *shown_query, self.kind, self.turn, self.query_message]
        scroll = {"fn": None, "js": SCROLL_TO_RESULT}
        in_classes, in_query, in_save = self.class_message, self.query_message, self.save_message

        self._on(self.start, self.on_start, [], everything, in_classes).then(**scroll)
        self._on(self.add, self.on_add, new_class, [*classes, *new_class], in_classes)
        self._on(self.remove, self.on_remove, [self.removed], outcome, in_classes)
        self._on(self.clear, self.on_clear, [], outcome, in_classes)
        self._on(self.kind, self.on_kind, [self.kind, self.turn], shown_query, in_query)
        another = [*result, self.turn, self.example]
        self._on(self.another, self.on_another, [self.turn], another, in_query).then(**scroll)
        self._on(self.predict, self.on_predict, query, result, in_query).then(**scroll)
        self._on(self.label, self.on_label, [self.target, *query], classes, in_query)
        self._on(self.save, self.on_save, [], [self.download], in_save)
        self._on(self.onnx, self.on_onnx, [], [self.download], in_save)
        self.blocks.load(fn=None, js=SELECT_BRUSH)

    def _on(
        self,
        component: Any,
        handler: Callable[..., Updates],
        inputs: list[Any],
        outputs: list[Any],
        message: Any,
    ) -> Any:
        """Bind a button, or the choice of a radio button, to a handler of session and inputs.

        Errors become a sentence in the component ``message``.
        """
        event = component.input if component is self.kind else component.click
        return event(
            with_message(self._with_session(handler), message),
            [self.session, *inputs],
            [message, *(each for each in outputs if each is not message)],
            api_visibility="private",
            concurrency_id="model",
            concurrency_limit=1,
            show_progress="minimal",
        )

    def _with_session(self, handler: Callable[..., Updates]) -> Callable[..., Updates]:
        return lambda session, *inputs: handler(session or Session(self.trained), *inputs)

    def on_start(self, session: Session) -> Updates:
        """Add the classes of the example, and predict its first picture."""
        for title, images in examples.armenian(session.side).support.items():
            if title not in session.pictures:
                session.add(title, [_three_channels(image) for image in images])
        return {
            **self._class_updates(session),
            self.class_message: view.message("Five Armenian letters, five pictures of each."),
            self.result: view.prediction(session.predict(_example(session, 0))),
            **self.on_kind(session, EXAMPLE, 0),
            self.kind: EXAMPLE,
            self.turn: 0,
            self.query_message: view.message(""),
        }

    def on_add(self, session: Session, name: str, paths: list[str] | None) -> Updates:
        """Add uploaded pictures to a class."""
        session.add(name, session.read([Path(path) for path in paths or []]))
        name = " ".join(name.split())
        text = f"“{name}” now has {len(session.pictures[name])} pictures."
        if len(session.pictures) < 2:
            text += " Add another class."
        return {
            **self._class_updates(session),
            self.class_message: view.message(text),
            self.class_name: "",
            self.uploads: None,
        }

    def on_remove(self, session: Session, name: str | None) -> Updates:
        """Remove a class."""
        session.remove(name or "")
        return self._without_result(session, f"“{name}” was removed.")

    def on_clear(self, session: Session) -> Updates:
        """Remove all classes."""
        session.clear()
        return self._without_result(session, "All classes were removed.")

    def on_kind(self, session: Session, kind: str, turn: int) -> Updates:
        """Show the source of pictures that was chosen."""
        gr = self.gr
        picture = view.picture(_example(session, turn)) if kind == EXAMPLE else ""
        return {
            # Hidden and not removed, so that the drawing and the selected brush stay.
            self.drawing: gr.update(visible=True if kind == DRAW else "hidden"),
            self.file: gr.update(visible=kind == UPLOAD),
            self.example: gr.update(visible=kind == EXAMPLE, value=picture),
            self.another: gr.update(visible=kind == EXAMPLE),
        }

    def on_another(self, session: Session, turn: int) -> Updates:
        """Show the next example, and predict it."""
        picture = _example(session, turn + 1)
        updates: Updates = {self.turn: turn + 1, self.example: view.picture(picture)}
        if len(session.pictures) < 2:
            return updates
        result = view.prediction(session.predict(picture))
        return {**updates, self.session: session, self.result: result}

    def on_predict(self, session: Session, *query: Any) -> Updates:
        """Predict the class of the picture."""
        result = session.predict(_query_picture(session, *query))
        return {self.session: session, self.result: view.prediction(result)}

    def on_label(self, session: Session, name: str | None, *query: Any) -> Updates:
        """Add the picture to a class."""
        session.add(name or "", [_query_picture(session, *query)])
        text = f"The picture was added to “{' '.join((name or '').split())}”."
        return {
            **self._class_updates(session),
            self.query_message: view.message(text),
            self.target: self.gr.update(value=None, choices=[*session.pictures]),
        }

    def on_save(self, session: Session) -> Updates:
        """Offer the fitted learner as a file."""
        return self._saved(session.save, "Use it with: omni predict classes.learner IMAGE ...")

    def on_onnx(self, session: Session) -> Updates:
        """Offer the fitted predictor as an ONNX file."""
        return self._saved(session.save_onnx, "Any program that reads ONNX can use it.")

    def _class_updates(self, session: Session) -> Updates:
        """All components that depend on the classes."""
        names = [*session.pictures]
        return {
            self.session: session,
            self.classes: view.classes(session.pictures),
            self.removed: self.gr.update(choices=names, value=None),
            self.target: self.gr.update(choices=names),
            self.download: self.gr.update(value=None, visible=False),
            self.save_message: view.message(""),
        }

    def _without_result(self, session: Session, text: str) -> Updates:
        return {
            **self._class_updates(session),
            self.class_message: view.message(text),
            self.result: view.prediction(None),
        }

    def _saved(self, write: Callable[[Path], Path], text: str) -> Updates:
        path = write(Path(tempfile.mkdtemp(dir=self.folder)))
        return {
            self.download: self.gr.update(value=str(path), visible=True),
            self.save_message: view.message(text),
        }


def with_message(handler: Callable[..., Updates], message: Any) -> Callable[..., Updates]:
    """A handler whose errors are a sentence on the page.

    Args:
        handler: of an event.
        message: component of the sentence.
    """

    def handle(*inputs: Any) -> Updates:
        try:
            return {message: view.message(""), **handler(*inputs)}
        except InputError as error:
            return {message: view.message(str(error), wrong=True)}
        except Exception:
            traceback.print_exc()
            return {message: view.message(FAILED, wrong=True)}

    return handle


def _query_picture(
    session: Session, kind: str, drawn: dict[str, Any] | None, path: str | None, turn: int
) -> Picture:
    """The picture to classify, of the source that was chosen."""
    if kind == DRAW:
        return session.read([centered(drawn)])[0]
    if kind == UPLOAD:
        if path is None:
            raise InputError("Choose a picture first.")
        return session.read([Path(path)])[0]
    return _example(session, turn)


def _example(session: Session, turn: int) -> Picture:
    queries = examples.armenian(session.side).queries
    return _three_channels(queries[turn % len(queries)])


def _three_channels(image: NDArray[np.uint8]) -> Picture:
    return np.array(np.broadcast_to(image, (3, *image.shape)))


def find_gradio() -> Any:
    """Gradio.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError(
            "the demo needs gradio, which is not installed: pip install 'omnitraining[demo]'"
        ) from error
