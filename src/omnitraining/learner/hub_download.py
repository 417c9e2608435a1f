"""Downloads of models of the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from omnitraining.errors import InputError

FILES = ("*.safetensors", "*.json", "*.md")
"""Files of a model that are downloaded; none of them is code."""


def download(name: str) -> Path:
    """The folder of a model on the hub; it is downloaded once and kept.

    Args:
        name: "owner/name".

    Raises:
        InputError: there is no such model, or the hub cannot be reached; or huggingface_hub is not
            installed.
    """
    with reached(name) as hub:
        return Path(hub.snapshot_download(name, allow_patterns=[*FILES]))


@contextmanager
def reached(name: str) -> Iterator[Any]:
    """huggingface_hub, whose errors become an `InputError` that names the model."""
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(
            "the hub needs huggingface_hub, which is not installed: pip install 'omnitraining[hub]'"
        ) from error
    try:
        yield hub
    except Exception as error:  # of an HTTP library that differs between versions
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{name} on the hub: {reason[0]}") from error
