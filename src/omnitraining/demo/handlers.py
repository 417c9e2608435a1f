"""What the events of the page do: from the values of components to new ones."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnitraining.demo import view
from omnitraining.demo.archive import unpacked
from omnitraining.demo.class_folders import ClassFiles, class_files
from omnitraining.demo.components import (
    CAMERA,
    DRAW,
    EXAMPLE,
    FOLDER,
    NEW,
    PICTURES,
    ZIP,
    Components,
)
from omnitraining.demo.drawing import centered
from omnitraining.demo.examples import Examples, example
from omnitraining.demo.html import message
from omnitraining.demo.pictures import File, Query, Reader, as_picture, preview, sentences
from omnitraining.demo.prediction_cards import prediction_cards, query_pictures
from omnitraining.demo.session import Session, counted
from omnitraining.errors import InputError

Updates = dict[Any, Any]
"""New values by component, as Gradio takes them of a handler."""


class Handlers:
    """A method for each event; errors are `InputError` with a sentence for the page.

    Args:
        components: of the page.
        folder: for temporary files, and files to download.
    """

    def __init__(self, components: Components, folder: Path) -> None:
        """Keep them; the classes of a visitor are in the session that every method gets."""
        self.components, self.folder, self.gr = components, folder, components.gr

    def start(self, session: Session) -> Updates:
        """Add the classes of the example, and predict its first pictures."""
        c, shown = self.components, _example(session)
        for title, images in shown.support.items():
            if title not in session.pictures:
                session.add(title, [as_picture(image, session.inputs) for image in images])
        return {
            **self._class_updates(session),
            c.class_message: message(shown.words),
            **self._predicted(session, _examples(session, 0)),
            **self.kind(session, EXAMPLE, 0),
            c.kind: EXAMPLE,
            c.turn: 0,
            c.query_message: message(""),
        }

    def source(self, session: Session, source: str) -> Updates:
        """Show what adds pictures to classes."""
        return {**self.components.shown_for_adding(source)}

    def add(
        self,
        session: Session,
        source: str,
        name: str,
        uploads: list[str] | None,
        camera: str | None,
        archive: str | None,
        folder: list[str] | None,
        folder_names: Any,
    ) -> Updates:
        """Add pictures to a class, or whole classes."""
        c = self.components
        if source == FOLDER:
            text = _add_folder(session, folder or [], folder_names)
        elif source == ZIP:
            text = self._add_archive(session, archive)
        else:
            text = _add_pictures(session, name, source, uploads or [], camera)
        if len(session.pictures) == 1:
            text += " Add another class."
        return {
            **self._class_updates(session),
            c.class_message: message(text),
            # Of a camera, pictures of one class are taken one after the other.
            c.class_name: name if source == CAMERA else "",
            **dict.fromkeys((c.uploads, c.camera, c.zip, c.folder)),
        }

    def remove(self, session: Session, name: str | None) -> Updates:
        """Remove a class."""
        session.remove(name or "")
        return self._without_result(session, f"“{name}” was removed.")

    def clear(self, session: Session) -> Updates:
        """Remove all classes."""
        session.clear()
        return self._without_result(session, "All classes were removed.")

    def kind(self, session: Session, kind: str, turn: int) -> Updates:
        """Show the source of pictures that was chosen."""
        pictures = query_pictures(_examples(session, turn)) if kind == EXAMPLE else ""
        update = self.gr.update(visible=kind == EXAMPLE, value=pictures)
        return {**self.components.shown(kind), self.components.example: update}

    def another(self, session: Session, turn: int) -> Updates:
        """Show the next examples, and predict them."""
        c, queries = self.components, _examples(session, turn + 1)
        updates: Updates = {c.turn: turn + 1, c.example: query_pictures(queries)}
        if len(session.pictures) < 2:
            return updates
        return {**updates, **self._predicted(session, queries)}

    def predict(self, session: Session, *query: Any) -> Updates:
        """Predict the classes of the pictures."""
        queries, left_out = _queries(session, *query)
        updates = self._predicted(session, queries)
        return {**updates, self.components.query_message: message(left_out)}

    def label(self, session: Session, name: str, new_name: str, *query: Any) -> Updates:
        """Add the pictures to a class, an old or a new one."""
        if name and new_name.strip():
            raise InputError("Choose “A new class”, or leave its name empty.")
        name = name or new_name
        queries, left_out = _queries(session, *query)
        session.add(name, [each.picture for each in queries])
        added = "The picture was" if len(queries) == 1 else f"{len(queries)} pictures were"
        text = f"{added} added to “{' '.join(name.split())}”. {left_out}"
        return {
            **self._class_updates(session),
            self.components.query_message: message(text.strip()),
            self.components.new_name: "",
        }

    def save(self, session: Session) -> Updates:
        """Offer the fitted learner as a file."""
        return self._saved(session.save, "Use it with: omni predict classes.learner IMAGE ...")

    def onnx(self, session: Session) -> Updates:
        """Offer the fitted predictor as an ONNX file."""
        return self._saved(session.save_onnx, "Any program that reads ONNX can use it.")

    def _add_archive(self, session: Session, archive: str | None) -> str:
        if archive is None:
            raise InputError("Choose a zip file first.")
        path = Path(archive)
        with unpacked(path, path.name, self.folder) as (files, problems):
            found = class_files(files, path.name)
            left_out = [*found.left_out, sentences(problems)]
            return session.add_folders(ClassFiles(found.classes, left_out))

    def _predicted(self, session: Session, queries: Sequence[Query]) -> Updates:
        c, found = self.components, session.predict([query.picture for query in queries])
        return {c.session: session, c.result: prediction_cards(queries, found)}

    def _class_updates(self, session: Session) -> Updates:
        """All components that depend on the classes."""
        c, names = self.components, [*session.pictures]
        try:
            fit = view.fit(session.report(), session.pictures, session.trained.name)
        except InputError as error:  # the pictures are kept: more classes may help, or fewer
            fit = message(str(error), wrong=True)
        return {
            c.session: session,
            c.classes: view.classes(session.pictures),
            c.fit: fit,
            c.removed: self.gr.update(choices=names, value=None),
            c.target: self.gr.update(choices=[*names, NEW], value=NEW[1]),
            c.download: self.gr.update(value=None, visible=False),
            c.save_message: message(""),
        }

    def _without_result(self, session: Session, text: str) -> Updates:
        return {
            **self._class_updates(session),
            self.components.class_message: message(text),
            self.components.result: prediction_cards([], None),
        }

    def _saved(self, write: Callable[[Path], Path], text: str) -> Updates:
        path = write(Path(tempfile.mkdtemp(dir=self.folder)))
        return {
            self.components.download: self.gr.update(value=str(path), visible=True),
            self.components.save_message: message(f"{path.name} is downloaded. {text}"),
        }


def _add_pictures(
    session: Session, name: str, source: str, uploads: Sequence[str], camera: str | None
) -> str:
    if source == PICTURES:
        files = [_file(path) for path in uploads]
    else:
        if camera is None:
            raise InputError("Take a picture first: press the button in the camera's image.")
        files = [File("The picture", Path(camera))]
    reader = Reader(session.inputs)
    pictures = reader.pictures(files)
    reader.check_any(pictures)
    session.add(name, pictures)
    name = " ".join(name.split())
    text = f"“{name}” now has {counted(len(session.pictures[name]), 'picture')}. "
    return (text + sentences(reader.problems)).strip()


def _add_folder(session: Session, paths: Sequence[str], names: Any) -> str:
    """Add a folder; ``names`` are paths from the browser, used as class names only."""
    if not paths:
        raise InputError("Choose a folder first.")
    if not isinstance(names, list) or len(names) != len(paths):
        raise InputError("The browser did not send the names of the folders: give a zip instead.")
    files = [File(str(name), Path(path)) for name, path in zip(names, paths, strict=True)]
    return session.add_folders(class_files(files, files[0].name.split("/")[0]))


def _queries(
    session: Session,
    kind: str,
    uploads: list[str] | None,
    snapshot: str | None,
    drawn: dict[str, Any] | None,
    turn: int,
) -> tuple[list[Query], str]:
    """The pictures to classify, of the source that was chosen, and what was left out."""
    if kind == EXAMPLE:
        return _examples(session, turn), ""
    if kind == DRAW:
        drawing = centered(drawn)
        return [Query("drawing", as_picture(drawing, session.inputs), preview(drawing))], ""
    if kind == CAMERA:
        if snapshot is None:
            raise InputError("Take a picture first: press the button in the camera's image.")
        files = [File("picture", Path(snapshot))]
    else:
        if not uploads:
            raise InputError("Choose a picture first.")
        files = [_file(path) for path in uploads]
    reader = Reader(session.inputs)
    return reader.queries(files), sentences(reader.problems)


def _file(path: str) -> File:
    return File(Path(path).name, Path(path))


def _example(session: Session) -> Examples:
    return example(session.inputs.channels, session.side)


def _examples(session: Session, turn: int) -> list[Query]:
    """A group of the example's pictures."""
    groups = _example(session).queries
    return [
        Query("example", as_picture(image, session.inputs), preview(image))
        for image in groups[turn % len(groups)]
    ]
