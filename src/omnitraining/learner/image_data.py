"""Forms in which images are given, with or without labels, unified for `ImageInputs`."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from omnitraining.errors import InputError

IMAGE, LABEL = "image", "label"  # keys of a row, as data sets of Hugging Face have them


class Rows:
    """A stream of images, with or without labels: of a data set, a loader, or a list of rows.

    Only the labels are kept; they are complete after an iteration.

    Args:
        source: a data set or loader of torch, or anything whose items are images, pairs of an
            image and its label, or mappings with "image" and maybe "label".
    """

    def __init__(self, source: Any) -> None:
        """Keep the source; it is read by an iteration."""
        self.source = source
        self.labels: list[Any] = []
        self.names: list[Any] = []
        """Names of the columns of the first row, if the rows have names."""
        self.passed = 0
        """Images of the iteration so far."""

    @property
    def shuffles(self) -> bool:
        """Whether another iteration may have another order."""
        if not isinstance(self.source, DataLoader) or isinstance(
            self.source.dataset, IterableDataset
        ):
            return False
        batches = getattr(self.source.batch_sampler, "sampler", self.source.sampler)
        return not isinstance(batches, SequentialSampler)

    @property
    def count(self) -> int | None:
        """Number of images, if it is known before they are read."""
        source = self.source
        if isinstance(source, DataLoader):
            source = source.sampler if source.batch_size or source.batch_sampler is None else None
        try:
            return len(source)
        except TypeError:
            return None

    def __iter__(self) -> Iterator[Any]:
        """The images, in order.

        Raises:
            InputError: an item is neither an image, nor a pair, nor a mapping with "image".
        """
        self.labels, self.names, self.passed = [], [], 0
        for item in self._items():
            image, labels = _image_and_label(item, self.passed)
            if not self.passed and isinstance(item, Mapping):
                self.names = [*item]
            self.passed += 1
            self.labels += labels
            if self.labels and len(self.labels) != self.passed:
                raise InputError(
                    f"image {self.passed - 1} has no label, others have: give one each"
                )
            yield image

    def _items(self) -> Iterator[Any]:
        if isinstance(self.source, DataLoader) and self.source.batch_sampler is not None:
            for batch in self.source:
                yield from _unbatched(batch)
        elif isinstance(self.source, Dataset) and hasattr(self.source, "__len__"):
            yield from (self.source[number] for number in range(len(self.source)))
        else:
            yield from self.source

    def agreed(self, y: ArrayLike | None) -> Any:
        """The labels, after an iteration.

        Args:
            y: the same labels, if they are given too.

        Raises:
            InputError: there are no labels, or ``y`` differs from them.
        """
        if y is None:
            if not self.labels and self.names not in ([], [IMAGE]):
                raise InputError(
                    f"rows have {', '.join(map(repr, self.names))}: call the label 'label', or "
                    "give y"
                )
            if not self.labels:
                raise InputError("there are no labels: the data set gives images alone; give y too")
            return self.labels
        given = [*np.asarray(y).ravel().tolist()] if self.labels else []
        if given and given != [*np.asarray(self.labels).ravel().tolist()]:
            raise InputError("y differs from the labels of the data set: leave y out, or drop them")
        return y


def as_images(images: Any) -> Any:
    """Images as an array, a tensor, a list, a path, or `Rows`.

    Raises:
        InputError: they have no order, or are a table of several columns.
    """
    if isinstance(images, Set):
        raise InputError(f"images are a {type(images).__name__}, which has no order: give a list")
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, Rows):
        return images
    if isinstance(images, Mapping):
        return _columns(images, f"a {type(images).__name__}")
    if hasattr(images, "columns") and hasattr(images, "to_dict"):  # a table of pandas
        return _table(images)
    if isinstance(images, DataLoader | Dataset) or hasattr(images, "column_names"):
        return Rows(images)
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUS" and images.shape[1:] == (1,):
        return images[:, 0]
    if isinstance(images, Iterator):
        images = [*images]
    if isinstance(images, Sequence) and not isinstance(images, str) and len(images):
        first = images[0]
        pair = isinstance(first, tuple) and len(first) == 2 and not _is_number(first[0])
        if isinstance(first, Mapping) or (pair and not isinstance(first[0], tuple | list)):
            return Rows(images)
    return images


def _image_and_label(item: Any, number: int) -> tuple[Any, list[Any]]:
    """The image of an item, and its label if it has one."""
    if isinstance(item, Mapping):
        if IMAGE not in item:
            raise InputError(
                f"row {number} has {', '.join(map(repr, item)) or 'nothing'}: its image must be "
                "called 'image', its label 'label'"
            )
        return item[IMAGE], [_plain(item[LABEL])] if LABEL in item else []
    if isinstance(item, tuple | list):
        if len(item) not in (1, 2):
            raise InputError(f"item {number} has {len(item)} parts: give an image, and its label")
        return item[0], [_plain(label) for label in item[1:]]
    return item, []


def _plain(label: Any) -> Any:
    """A label as a text or number of Python, if it is one."""
    return label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label


def _unbatched(batch: Any) -> Iterator[Any]:
    if isinstance(batch, Mapping):
        names = [name for name in (IMAGE, LABEL) if name in batch] or [*batch]
        for values in zip(*(batch[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))
    elif isinstance(batch, tuple | list) and len(batch) in (1, 2) and len(batch[0]) != 0:
        yield from zip(*batch, strict=True)
    else:
        yield from batch


def _columns(values: Mapping[str, Any], what: str) -> Any:
    """Columns by name, as a slice of a data set of Hugging Face."""
    images = values.get(IMAGE)
    if isinstance(images, Sequence) and not isinstance(images, str):
        kept = {name: values[name] for name in (IMAGE, LABEL) if name in values}
        return Rows([dict(zip(kept, row, strict=True)) for row in zip(*kept.values(), strict=True)])
    raise InputError(f"images are {what}, which has no order: give a list")


def _table(frame: Any) -> Any:
    names = [*frame.columns]
    if len(names) == 1:
        return frame[names[0]].tolist()
    if IMAGE in names:
        return _columns({name: frame[name].tolist() for name in names}, "a table")
    shown = ", ".join(map(repr, names[:5]))
    raise InputError(
        f"images are a table of columns {shown}: call the column of paths 'image' (and that of "
        "labels 'label'), or give it alone"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def missing(label: Any) -> bool:
    """Whether a label is a missing value: None, nan, NA or NaT."""
    if label is None or type(label).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    return isinstance(label, float | np.floating) and bool(np.isnan(label))


def labels_of(y: ArrayLike) -> NDArray[Any]:
    """Labels [B]: texts, whole numbers, or true and false.

    Raises:
        InputError: they are of another type, of several types, or one is missing.
    """
    if isinstance(y, Set | Mapping):
        raise InputError(f"labels are a {type(y).__name__}: give a list, one label per image")
    if isinstance(y, Tensor):
        labels: NDArray[Any] = (y.float() if y.is_floating_point() else y).numpy(force=True)
    else:
        y = [*y] if isinstance(y, Iterator) else y
        labels = np.ma.asarray(y).astype(object) if np.ma.isMaskedArray(y) else _array(y)
    each = y if isinstance(y, list | tuple) else labels.ravel() if labels.dtype.kind in "Of" else ()
    for number, label in enumerate(each):
        if missing(label):
            raise InputError(f"label {number} is missing ({label!r}): give one per image")
    if len({isinstance(label, str) for label in each}) > 1:
        raise InputError("labels are texts and numbers: give only texts, or only whole numbers")
    if len({isinstance(label, bool | np.bool_) for label in each}) > 1:
        raise InputError("labels are numbers, and true or false: give only one kind")
    if labels.dtype == object:
        labels = _array(labels.tolist())
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    what = f"{labels.dtype} {list(labels.shape)}"
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == labels.round())).all():
        what = f"continuous, {what}"
    elif labels.ndim == 1 and labels.dtype.kind in "iubUf":
        return labels
    raise InputError(f"labels are {what}: give one text or whole number per image")


def _array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError("labels are lists of different lengths: give one per image") from error


def kind_of(labels: NDArray[Any]) -> str:
    """The kind of labels, in words for a message."""
    return {"U": "texts", "b": "true or false"}.get(labels.dtype.kind, "numbers")


def check_kind(labels: NDArray[Any], fitted: NDArray[Any]) -> None:
    """Check that labels are of the same kind as the labels of a fit.

    Args:
        labels: to check.
        fitted: labels of the fit.

    Raises:
        InputError: they are of another kind, so that none can equal one of the fit.
    """
    if kind_of(labels) != kind_of(fitted):
        raise InputError(
            f"labels are {labels.dtype}, labels of the fit are {fitted.dtype}: use one kind"
        )
