"""The page of the demo in Gradio: which event calls which handler."""

import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from omnitraining.demo import scripts
from omnitraining.demo.components import IDLE, Components
from omnitraining.demo.handlers import Handlers, Updates
from omnitraining.demo.html import message
from omnitraining.demo.session import Session
from omnitraining.errors import InputError
from omnitraining.learner import TrainedModel

CLEAN_UP = 300  # seconds between two looks for old files
WAITING = 120  # requests that may wait
FAILED = "This failed in the program; its terminal shows the error."


class Page:
    """The page, and its events.

    Args:
        trained: a trained model of images.
        folder: for temporary files, and files to download.

    Attributes:
        blocks: the page, a `gradio.Blocks`.
        components: of the page.

    Raises:
        InputError: Gradio is missing, or the model is one of curves.
    """

    def __init__(self, trained: TrainedModel, folder: Path) -> None:
        """Build the page and bind its events."""
        self.trained, gradio = trained, find_gradio()
        self.blocks = gradio.Blocks(
            title=f"Omni-Training: {trained.name}",
            analytics_enabled=False,
            delete_cache=(CLEAN_UP, IDLE),
        )
        with self.blocks:
            self.components = Components(gradio, trained)
            self._bind(Handlers(self.components, folder))
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=1)

    def _bind(self, do: Handlers) -> None:
        c = self.components
        query = [c.kind, c.files, c.snapshot, c.drawing, c.turn]
        shown_query = [*c.shown(""), c.example]
        new_classes = [c.source, c.class_name, c.uploads, c.camera, c.zip, c.folder, c.folder_names]
        classes = [c.session, c.classes, c.fit, c.removed, c.target, c.download, c.save_message]
        result = [c.session, c.result]
        outcome = [*classes, c.result]
        everything = [*outcome, *shown_query, c.kind, c.turn, c.query_message]
        scroll = {"fn": None, "js": scripts.SCROLL_TO_RESULT}
        on = self._on

        on(c.start, do.start, [], everything, c.class_message).then(**scroll)
        on(c.source, do.source, [c.source], [*c.shown_for_adding("")], c.class_message)
        on(
            c.add,
            do.add,
            new_classes,
            [*classes, c.class_name, c.uploads, c.camera, c.zip, c.folder],
            c.class_message,
            js=scripts.WITH_PATHS,
        )
        on(c.remove, do.remove, [c.removed], outcome, c.class_message)
        on(c.clear, do.clear, [], outcome, c.class_message)
        on(c.kind, do.kind, [c.kind, c.turn], shown_query, c.query_message)
        another = [*result, c.turn, c.example]
        on(c.another, do.another, [c.turn], another, c.query_message).then(**scroll)
        on(c.predict, do.predict, query, result, c.query_message).then(**scroll)
        labeled = [c.target, c.new_name, *query]
        on(c.label, do.label, labeled, [*classes, c.new_name], c.query_message)
        for button, handler in ((c.save, do.save), (c.onnx, do.onnx)):
            on(button, handler, [], [c.download], c.save_message, failed={c.download: None}).then(
                fn=None, inputs=[c.download], js=scripts.DOWNLOAD
            )
        self.blocks.load(fn=None, js=scripts.ON_LOAD)

    def _on(
        self,
        component: Any,
        handler: Callable[..., Updates],
        inputs: list[Any],
        outputs: list[Any],
        place: Any,
        js: str | None = None,
        failed: Updates | None = None,
    ) -> Any:
        """Bind a button, or the choice of a radio button, to a handler of session and inputs.

        Errors become a sentence in the component ``place``, beside the updates ``failed``.
        """
        c = self.components
        event = component.input if component in (c.kind, c.source) else component.click
        return event(
            with_message(self._with_session(handler), place, failed or {}),
            [c.session, *inputs],
            [place, *(each for each in outputs if each is not place)],
            js=js,
            api_visibility="private",
            concurrency_id="model",
            concurrency_limit=1,
            show_progress="minimal",
        )

    def _with_session(self, handler: Callable[..., Updates]) -> Callable[..., Updates]:
        return lambda session, *inputs: handler(session or Session(self.trained), *inputs)


def with_message(
    handler: Callable[..., Updates], place: Any, failed: Updates | None = None
) -> Callable[..., Updates]:
    """A handler whose errors are a sentence on the page.

    Args:
        handler: of an event.
        place: component of the sentence.
        failed: other updates after an error.
    """

    def handle(*inputs: Any) -> Updates:
        try:
            return {place: message(""), **handler(*inputs)}
        except InputError as error:
            return {**(failed or {}), place: message(str(error), wrong=True)}
        except Exception:
            traceback.print_exc()
            return {**(failed or {}), place: message(FAILED, wrong=True)}

    return handle


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
