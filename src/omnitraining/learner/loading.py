"""A learner of a trained model from any source."""

from contextlib import nullcontext
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from omnitraining.config import bounds
from omnitraining.config.bounds import Bounds, BoundsError
from omnitraining.config.run_config import INSTANTIATION_ERRORS
from omnitraining.errors import InputError
from omnitraining.learner import checks
from omnitraining.learner.checks import DamagedError
from omnitraining.learner.classifier import FewShotClassifier
from omnitraining.learner.fit_result import current_accept_rate
from omnitraining.learner.frozen import BackboneOptions, frozen_model
from omnitraining.learner.regressor import FewShotRegressor
from omnitraining.learner.sources import (
    DEFAULT_MODEL,
    OF_FILES,
    Source,
    check,
    file_of,
    find,
    names_backbone,
    read_model,
    refuse_options,
)
from omnitraining.learner.trained import TrainedModel
from omnitraining.precision import float32_on_cpu
from omnitraining.runs.run import unique_tensors


@float32_on_cpu()
def load(
    source: Source | nn.Module = DEFAULT_MODEL,
    trust: bool = False,
    *,
    backbone: nn.Module | None = None,
    device: str = "auto",
    **options: Any,
) -> FewShotClassifier | FewShotRegressor:
    """A learner of a trained model, ready to be fitted, or a saved learner as it was.

    A backbone of another library is used as it is, frozen, with its own preprocessing:
    ``load("timm/vit_small_patch14_dinov2.lvd142m")``. For your own module, specify it:
    ``load(module, image_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))``.

    Args:
        source: name of a shipped model ("photos", or "glyphs" for characters); a run folder; a
            file that a learner saved, or a folder that holds it as weights.safetensors;
            "owner/name" on the Hugging Face hub; "timm/NAME", "torchvision/NAME" or
            "transformers/NAME"; or a module that returns features.
        trust: let a model name classes from outside this library, as a backbone of your own;
            their code is run.
        backbone: the module, if the file is of a learner that was made of one.
        device: that the model is on: "cpu", "cuda:1", or "auto", which is CUDA, else Apple's MPS,
            else the CPU. Images and tensors may be on any device.
        options: of a backbone, or ``aspect`` of any model, see `BackboneOptions`; of
            `FewShotClassifier` or `FewShotRegressor`, as ``flow="meta"``. A learner that was
            fitted before it was saved is fitted again with them.

    Returns:
        A regressor if the model was trained on curves, otherwise a classifier.

    Raises:
        InputError: there is no such model or device, it is damaged or of a newer version, or it
            names classes that are not trusted; or as `frozen_model`.

    Example:
        >>> import numpy as np
        >>> import omnitraining
        >>> images = np.stack([np.eye(28), np.fliplr(np.eye(28))])
        >>> learner = omnitraining.load("glyphs", flow="pre").fit(images, ["down", "up"])
        >>> learner.predict(images[:1])
        array(['down'], dtype='<U4')
    """
    names = [field.name for field in fields(BackboneOptions)]
    given: Any = {name: options.pop(name) for name in names if name in options}
    of_backbone = BackboneOptions(**given)
    tensors: dict[str, Tensor] = {}
    fit: dict[str, Any] = {}
    path = None
    if backbone is not None and (isinstance(source, nn.Module) or names_backbone(source)):
        raise InputError("backbone is for a file of a learner: give the module as source")
    if isinstance(source, nn.Module):
        trained = frozen_model(source, of_backbone, device)
    else:
        check(source)
        if not isinstance(source, TrainedModel) and not names_backbone(source):
            path = file_of(source)
        if path is None:
            trained = find(source, trust, of_backbone, device)
        else:
            refuse_options(source, of_backbone, OF_FILES)
            trained, tensors, fit = read_model(path, trust, of_backbone.file, backbone, device)
            if tensors and of_backbone.aspect is not None:
                raise InputError(
                    f"aspect is {of_backbone.aspect!r}, but {source} was fitted with its own: give "
                    "the aspect where the learner is fitted"
                )
            trained = trained.with_aspect(of_backbone.aspect)
    kind = FewShotRegressor if trained.inputs is None else FewShotClassifier
    former = ("reject",) if kind is FewShotClassifier else ()
    allowed = [name for name in kind._get_param_names() if name not in ("model", *former)]
    for name in options:
        if name not in (*allowed, *former):
            raise InputError(
                f"{kind.__name__} has no option {name!r}: choose from {', '.join(allowed)}"
            )
    if "reject" in options:
        old, new = options.pop("reject"), options.get("accept_rate")
        options["accept_rate"] = current_accept_rate(new, old)
    try:
        checks.options(options, trained.model.trained_flows)
    except DamagedError as error:  # an argument, not the file
        raise InputError(f"option {str(error).removeprefix('fit.')}") from error
    learner: FewShotClassifier | FewShotRegressor
    weights = sum(tensor.nbytes for tensor in unique_tensors(trained.model).values())
    stored = sum(tensor.nbytes for tensor in tensors.values()) + weights
    try:
        with nullcontext() if trust or path is None else Bounds(stored, bounds.FIT_PRODUCTS):
            learner = kind._restored(trained, tensors, {**fit, **options})
    except BoundsError as error:
        raise InputError(
            f"{source} cannot be fitted again: {error}; add --trust (in Python trust=True) if you "
            "trust its author"
        ) from error
    except InputError:
        raise
    except INSTANTIATION_ERRORS as error:
        reason = str(error) if isinstance(error, DamagedError) else repr(error)
        raise InputError(f"{source} is damaged: {' '.join(reason.split())}") from error
    return learner
