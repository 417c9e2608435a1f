"""Reading of uploaded pictures, within limits, as the learner reads them; and previews of them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from omnitraining.datasets.decoding import open_image
from omnitraining.datasets.pixels import eight_bit
from omnitraining.errors import InputError
from omnitraining.learner.inputs import ImageInputs

MEGABYTES = 20  # of one picture
MEGAPIXELS = 50  # of one picture
SECONDS = 60  # for reading the pictures of one upload
QUERIES = 20  # pictures to classify at a time
NAMED = 3  # problems that are shown of one upload
PREVIEW = 240  # pixels of the longer side of a preview

Picture: TypeAlias = NDArray[np.uint8]
"""An image [3, S, S], where S is the side that the model resizes to."""


class File(NamedTuple):
    """An uploaded file.

    Attributes:
        name: as the visitor has it; of class folders with its folders, as "photos/cat/1.jpg".
        path: where it lies on this machine.
    """

    name: str
    path: Path


class Query(NamedTuple):
    """A picture to classify.

    Attributes:
        name: of its file, or what it is.
        picture: pixels for the learner.
        preview: the same picture, small and with its own aspect.
    """

    name: str
    picture: Picture
    preview: Image.Image


class Reader:
    """Reads the pictures of one upload; files that are no pictures are listed as problems.

    Args:
        inputs: of the model.

    Attributes:
        problems: what is wrong with files that were left out, one sentence each.
    """

    def __init__(self, inputs: ImageInputs) -> None:
        """Start the clock."""
        self.inputs, self.problems = inputs, list[str]()
        self._start = time.monotonic()

    def pictures(self, files: Sequence[File], most: int | None = None) -> list[Picture]:
        """Pictures of files, in their order.

        Args:
            files: that were uploaded.
            most: pictures after which the other files are not read.

        Raises:
            InputError: reading takes too long.
        """
        pictures: list[Picture] = []
        for file in files:
            if most is not None and len(pictures) == most:
                break
            try:
                pictures.append(self._picture(file))
            except InputError as error:
                self.problems.append(str(error))
            self._check_clock()
        return pictures

    def queries(self, files: Sequence[File]) -> list[Query]:
        """The same with previews.

        Args:
            files: that were uploaded.

        Raises:
            InputError: reading takes too long, there are too many files, or none is a picture.
        """
        if len(files) > QUERIES:
            raise InputError(f"These are {len(files)} pictures: {QUERIES} at most at a time.")
        found = [(file, self.pictures([file])) for file in files]
        queries = [
            Query(file.name, picture, _preview_of(file.path))
            for file, pictures in found
            for picture in pictures
        ]
        self.check_any(queries)
        return queries

    def check_any(self, found: Sequence[object]) -> None:
        """Refuse files of which none was a picture.

        Args:
            found: of the files.

        Raises:
            InputError: nothing was found, but problems.
        """
        if self.problems and not found:
            raise InputError(sentences(self.problems))

    def _picture(self, file: File) -> Picture:
        name, path = file
        if not path.is_file():
            raise InputError(f"{name} is not there any more: choose it again.")
        if path.stat().st_size > MEGABYTES * 2**20:
            raise InputError(f"{name} has more than {MEGABYTES} megabytes: give a smaller file.")
        try:
            with path.open("rb") as stream, open_image(stream) as image:
                pixels = image.width * image.height
        except Exception:
            pixels = 0  # decoding raises the error
        if pixels > MEGAPIXELS * 1e6:
            raise InputError(
                f"{name} has {pixels / 1e6:.0f} million pixels: {MEGAPIXELS} million at most."
            )
        try:
            return as_picture(path, self.inputs)
        except InputError as error:
            raise InputError(f"{str(error).replace(str(path), name)}.") from error

    def _check_clock(self) -> None:
        if time.monotonic() - self._start > SECONDS:
            raise InputError(
                f"Reading the pictures took more than {SECONDS} seconds: give fewer or smaller "
                "ones."
            )


def as_picture(image: Path | Image.Image, inputs: ImageInputs) -> Picture:
    """A file or an image of Pillow as the learner reads it; gray if the network takes gray images.

    Args:
        image: of any size.
        inputs: of the model.

    Raises:
        InputError: it cannot be decoded.
    """
    pixels = inputs.colored(torch.from_numpy(inputs.decoded(image)))
    return np.ascontiguousarray(pixels.expand(3, -1, -1).numpy())


def sentences(problems: Sequence[str]) -> str:
    """The first problems, a sentence each, and the number of the others."""
    rest = [f"And {len(problems) - NAMED} more."] if len(problems) > NAMED else []
    return " ".join([*problems[:NAMED], *rest])


def preview(image: Image.Image) -> Image.Image:
    """A small copy of an image, with its own aspect; white where it is transparent."""
    small = eight_bit(image).convert("RGB")
    small.thumbnail((PREVIEW, PREVIEW))
    return small


def _preview_of(path: Path) -> Image.Image:
    with path.open("rb") as stream, open_image(stream) as image:
        image.draft(None, (PREVIEW, PREVIEW))  # a JPEG can be decoded at a fraction of its size
        return preview(image)
