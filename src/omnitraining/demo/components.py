"""The components of the page: what is where."""

from collections.abc import Mapping
from html import escape
from typing import Any

from omnitraining.demo import view
from omnitraining.demo.archive import UNPACKED
from omnitraining.demo.class_folders import FILES
from omnitraining.demo.html import message
from omnitraining.demo.pictures import MEGABYTES, MEGAPIXELS, QUERIES
from omnitraining.demo.prediction_cards import prediction_cards
from omnitraining.demo.protection import MAX_BODY
from omnitraining.demo.session import CLASSES, IMAGES
from omnitraining.learner import TrainedModel

IDLE = 3600  # seconds until sessions are deleted
PICTURES, CAMERA, FOLDER, ZIP = "Pictures", "Camera", "Folder", "Zip"
UPLOAD, DRAW, EXAMPLE = "Upload", "Draw", "Example"
NEW = ("A new class", "")  # label and value of the choice, beside the names of classes
CANVAS = 280  # pixels


class Components:
    """The components of a page, as attributes; they are made inside a `gradio.Blocks`.

    Args:
        gradio: the module.
        trained: a trained model of images.

    Attributes:
        first_kind: the source of pictures that is chosen at first.
    """

    def __init__(self, gradio: Any, trained: TrainedModel) -> None:
        """Lay them out."""
        self.gr, self.trained, inputs = gradio, trained, trained.image_inputs
        self.first_kind = DRAW if inputs.channels == 1 else UPLOAD
        gr = gradio
        self.session = gr.State(None, time_to_live=IDLE)
        self.turn = gr.State(0)
        self._html(
            "<h1>Few-shot classification</h1><p>Give two or more classes a few pictures each. "
            f"{self._predictor_text()} Nothing leaves this machine.</p>",
            elem_classes="omni-head",
        )
        self.start = gr.Button("Show me an example", variant="primary", elem_id="start")
        with gr.Row():
            with gr.Column(min_width=320):
                self._lay_out_classes()
            with gr.Column(min_width=320):
                self._lay_out_query()
                self._lay_out_result()
        self._html(
            f"<p>Model: {escape(trained.name)}. {view.resizing(inputs)} At most {CLASSES} classes "
            f"of {IMAGES} pictures, and {QUERIES} pictures to classify at a time; {MEGABYTES} MB "
            f"and {MEGAPIXELS} million pixels each. A folder or zip may have {FILES:,} files and "
            f"{MAX_BODY // 2**20} MB, and unpacked {UNPACKED} MB. Pictures are deleted when the "
            "program ends, or after an hour.</p>",
            elem_classes="omni-foot",
        )

    def _predictor_text(self) -> str:
        """The model and flows that predict, in a sentence."""
        flows = len(self.trained.model.trained_flows)
        if flows == 1:
            return f"{escape(self.trained.name)} then predicts the classes of new pictures."
        return (
            "Omni-Training then predicts the classes of new pictures, with each of its "
            f"{'three' if flows == 3 else flows} flows and with all of them."
        )

    def _lay_out_classes(self) -> None:
        gr = self.gr
        self._html("<h2>1. Classes</h2>", elem_classes="omni-step")
        self.classes = self._html(view.classes({}), elem_id="classes")
        self.fit = self._html(message(""), elem_id="fit")
        self.source = gr.Radio(
            [PICTURES, CAMERA, FOLDER, ZIP], value=PICTURES, label="Add", elem_id="source"
        )
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
        self.camera = self._camera("A picture of it", "camera")
        self.folder = gr.File(
            label="A folder with a folder of pictures for each class",
            file_count="directory",
            height=150,
            visible=False,
            elem_id="folder",
        )
        self.folder_names = gr.JSON(visible=False)
        self.zip = gr.File(
            label="A zip of a folder of pictures for each class",
            file_types=[".zip"],
            height=150,
            visible=False,
            elem_id="zip",
        )
        self.add = gr.Button("Add", elem_id="add")
        self.class_message = self._html(message(""), elem_id="class-message")
        with gr.Accordion("Remove a class, or all", open=False, elem_id="removing"):
            self.removed = gr.Radio([], label="Class to remove", elem_id="removed")
            with gr.Row():
                self.remove = gr.Button("Remove this class", elem_id="remove")
                self.clear = gr.Button("Remove all", elem_id="clear")

    def _lay_out_query(self) -> None:
        gr, kind = self.gr, self.first_kind
        self._html("<h2>2. Pictures to classify</h2>", elem_classes="omni-step")
        self.kind = gr.Radio(
            [UPLOAD, CAMERA, DRAW, EXAMPLE], value=kind, label="Source", elem_id="kind"
        )
        self.files = gr.File(
            label="One picture or several",
            file_count="multiple",
            file_types=["image"],
            height=150,
            visible=kind == UPLOAD,
            elem_id="file",
        )
        self.snapshot = self._camera("A picture", "snapshot")
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
            visible=True if kind == DRAW else "hidden",
            elem_id="drawing",
        )
        self.example = self._html("", visible=False, elem_id="example")
        self.another = gr.Button("Other examples", visible=False, elem_id="another")
        self.predict = gr.Button("Which class is it?", variant="primary", elem_id="predict")
        self.query_message = self._html(message(""), elem_id="query-message")
        with gr.Accordion("Or add these pictures to a class", open=False, elem_id="labeling"):
            self.target = gr.Radio([NEW], value=NEW[1], label="Class", elem_id="target")
            self.new_name = gr.Textbox(
                label="Name of the new class", max_lines=1, elem_id="new-name"
            )
            self.label = gr.Button("Add the pictures", elem_id="label")

    def _lay_out_result(self) -> None:
        gr = self.gr
        self._html("<h2>3. Predictions</h2>", elem_classes="omni-step")
        self.result = self._html(prediction_cards([], None), elem_id="result")
        self._html("<h2>4. Keep the fitted model</h2>", elem_classes="omni-step")
        with gr.Row():
            self.save = gr.Button("Download the learner", elem_id="save")
            self.onnx = gr.Button("As ONNX (slow)", elem_id="onnx")
        self.save_message = self._html(message(""), elem_id="save-message")
        self.download = gr.File(
            label="The file, if the browser did not download it",
            interactive=False,
            visible=False,
            elem_id="download",
        )

    def _camera(self, label: str, name: str) -> Any:
        """A camera; Gradio, which has no limits, does not decode its picture."""
        return self.gr.Image(
            label=label,
            type="filepath",
            image_mode=None,
            sources=["webcam"],
            webcam_options=self.gr.WebcamOptions(mirror=False),
            height=300,
            buttons=[],
            visible=False,
            elem_id=name,
        )

    def _html(self, html: str, **options: Any) -> Any:
        return self.gr.HTML(html, padding=False, **options)

    def shown(self, kind: str) -> Mapping[Any, Any]:
        """Visibility of the sources of pictures to classify, by component."""
        gr = self.gr
        return {
            self.files: gr.update(visible=kind == UPLOAD),
            self.snapshot: gr.update(visible=kind == CAMERA),
            # Hidden and not removed, so that the drawing and the selected brush stay.
            self.drawing: gr.update(visible=True if kind == DRAW else "hidden"),
            self.another: gr.update(visible=kind == EXAMPLE),
        }

    def shown_for_adding(self, source: str) -> Mapping[Any, Any]:
        """Visibility of the sources of classes, by component."""
        gr = self.gr
        return {
            self.class_name: gr.update(visible=source in (PICTURES, CAMERA)),
            self.uploads: gr.update(visible=source == PICTURES),
            self.camera: gr.update(visible=source == CAMERA),
            self.folder: gr.update(visible=source == FOLDER),
            self.zip: gr.update(visible=source == ZIP),
        }
