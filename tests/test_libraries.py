"""Backbones of other libraries: their own features and their own preprocessing, as references."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from omnitraining import InputError, load
from omnitraining.learner import FewShotClassifier
from omnitraining.libraries import PooledBackbone
from tests.reference.libraries import library

TIMM = {  # of different families; the side of the input, which their weights allow
    "convnextv2_atto": 64,
    "edgenext_xx_small": 64,
    "gmlp_ti16_224": 224,
    "mobilenetv3_small_050": 64,
    "poolformer_s12": 64,
    "pvt_v2_b0": 64,
    "regnetx_002": 64,
    "resnet10t": 64,
    "vit_small_patch14_dinov2": 56,
    "vit_tiny_patch16_224": 64,
    "xcit_nano_12_p16_224": 64,
    "swin_tiny_patch4_window7_224": 224,
}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Two classes of images of several sizes and aspects."""
    random = np.random.default_rng(0)
    made = []
    for number, size in enumerate([(90, 60), (70, 105), (300, 310), (65, 240)]):
        noise = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        noise[..., number % 2] //= 4
        made.append(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
    return made


def randomized(model: nn.Module) -> nn.Module:
    """Other weights than an initialization has, which may be zero."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return model.eval()


def features(learner: Any) -> Tensor:
    """Features [S, D] of the support images."""
    assert isinstance(learner, FewShotClassifier)
    (kept,) = learner._fitted().support.kept.values()
    return kept


def check(
    learner: Any,
    images: list[Image.Image],
    inputs: Tensor,
    expected: Tensor,
    levels: int = 1,
) -> None:
    """Compare a fitted learner with the library.

    Args:
        learner: fitted to the images.
        images: of its support set.
        inputs: that the library's own transform makes of them [S, C, H, W].
        expected: the library's own features of these inputs [S, D].
        levels: of 255 by which pixels may differ.
    """
    found = learner.model.image_inputs
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (found.mean, found.std))
    pixels = (inputs * std + mean).clamp(0, 1)
    assert (learner.preprocess(images) - pixels).abs().max() < (levels + 0.5) / 255
    torch.testing.assert_close(features(learner), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm(name: str, photos: list[Image.Image], tmp_path: Path) -> None:
    timm, size = library("timm"), TIMM[name]
    own = {"img_size": size} if name.startswith(("vit", "xcit")) else {}
    whole = randomized(timm.create_model(name, **own))
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    learner = load(f"timm/{name}", weights=tmp_path / "weights.safetensors", image_size=size)
    learner.fit(photos, ["a", "b", "a", "b"])
    config = timm.data.resolve_data_config({"img_size": size}, model=whole)
    transform = timm.data.create_transform(**config, is_training=False)
    inputs = torch.stack([transform(image) for image in photos])
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(inputs), pre_logits=True)
    check(learner, photos, inputs, expected)
    assert f"{expected.shape[1]} features" in repr(learner)


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "fc"), ("vit_b_32", "heads.head"), ("mobilenet_v3_small", "classifier.3")],
)
def test_models_of_torchvision(
    name: str, head: str, photos: list[Image.Image], tmp_path: Path
) -> None:
    models = library("torchvision").models
    whole = randomized(models.get_model(name))
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    learner = load(f"torchvision/{name}", weights=tmp_path / "weights.pth")
    learner.fit(photos, ["a", "b", "a", "b"])
    transform = models.get_model_weights(name).DEFAULT.transforms()
    inputs, seen = torch.stack([transform(image) for image in photos]), []
    whole.get_submodule(head).register_forward_hook(lambda _, x, __: seen.append(x[0]))
    with torch.no_grad():
        whole(inputs)
    check(learner, photos, inputs, seen[0])


SMALL: dict[str, dict[str, Any]] = {
    "vit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": 32, "patch_size": 8},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
               "image_size": 28, "patch_size": 14},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
}  # fmt: skip
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "dinov2": ("BitImageProcessor", {"size": {"shortest_edge": 32},
                                     "crop_size": {"height": 28, "width": 28}}),
    "resnet": ("ConvNextImageProcessor", {"size": {"shortest_edge": 56}, "crop_pct": 0.875}),
}  # fmt: skip
# In sizes whose margins are even: transformers rounds an odd one to the other pixel.


@pytest.mark.parametrize("kind", SMALL)
def test_models_of_transformers(kind: str, photos: list[Image.Image], tmp_path: Path) -> None:
    transformers = library("transformers")
    config = transformers.AutoConfig.for_model(kind, num_labels=3, **SMALL[kind])
    whole = transformers.AutoModelForImageClassification.from_config(config)
    randomized(whole).save_pretrained(tmp_path)
    name, options = PROCESSORS[kind]
    processor = getattr(transformers, name)(**options)
    processor.save_pretrained(tmp_path)
    learner = load(f"transformers/some/{kind}", weights=tmp_path)
    learner.fit(photos, ["a", "b", "a", "b"])
    inputs, seen = processor(photos, return_tensors="pt")["pixel_values"], []
    whole.classifier.register_forward_hook(lambda _, x, __: seen.append(x[0].flatten(1)))
    with torch.no_grad():
        whole(inputs)
    check(learner, photos, inputs, seen[0], levels=2)  # it resizes by torch, not by Pillow


def test_a_model_of_images_and_texts_gives_its_image_features(
    photos: list[Image.Image], tmp_path: Path
) -> None:
    transformers = library("transformers")
    part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16}  # fmt: skip
    vision = {**part, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=part, vision_config=vision, projection_dim=12)
    whole = randomized(transformers.CLIPModel(config))
    whole.save_pretrained(tmp_path)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(tmp_path)
    learner = load("transformers/some/clip", weights=tmp_path)
    learner.fit(photos, ["a", "b", "a", "b"])
    inputs = processor(photos, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = whole.get_image_features(pixel_values=inputs)
    expected = expected if isinstance(expected, Tensor) else expected.pooler_output
    check(learner, photos, inputs, expected, levels=2)
    learner.save(tmp_path / "clip.learner")
    again = load(tmp_path / "clip.learner")
    np.testing.assert_array_equal(again.predict_proba(photos), learner.predict_proba(photos))


class Returns(nn.Module):
    """A backbone that returns a tensor of a shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.flatten(1).mean(1).view(-1, *[1] * self.weight.dim())


@pytest.mark.parametrize(
    ("shape", "pooling", "expected"),
    [
        ((6,), None, lambda w: w),
        ((6, 3, 3), None, lambda w: w.mean((1, 2))),
        ((3, 3, 3), "average", lambda w: w.mean((1, 2))),
        ((3, 3, 6), "average-last", lambda w: w.mean((0, 1))),
        ((5, 6), "class-token", lambda w: w[0]),
        ((5, 6), "token-mean", lambda w: w.mean(0)),
    ],
)
def test_pooling(shape: tuple[int, ...], pooling: Any, expected: Any) -> None:
    model = Returns(*shape)
    found = PooledBackbone(model, pooling)(torch.ones(2, 3, 4, 4))
    torch.testing.assert_close(found, expected(model.weight).expand(2, -1))


@pytest.mark.parametrize(
    ("shape", "pooling", "message"),
    [
        ((5, 6), None, "returns tokens .*class-token.*token-mean"),
        ((3, 3, 6), None, "returns a map .*average-last"),
        ((6,), "average", "returns .B, D"),
        ((5, 6), "average", "pooling is average, but backbone Returns returns .B, 5, 6"),
        ((2, 2, 2, 2), None, "it must return features"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(
    shape: tuple[int, ...], pooling: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PooledBackbone(Returns(*shape), pooling)(torch.ones(2, 3, 4, 4))


def test_features_of_half_precision_are_close() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    x = torch.rand(3, 3, 2, 2)
    half = PooledBackbone(model, precision="bfloat16")(x)
    assert half.dtype == torch.float32 and not torch.equal(half, model(x))
    torch.testing.assert_close(half, model(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm/resnet1o", "timm has no model 'resnet1o': is it resnet"),
        ("timm/hf-hub:a/b", "timm has no model"),
        ("timm/resnet18.mine", "no pretrained weights of resnet18.mine"),
        ("torchvision/resnet19", "torchvision has no model 'resnet19': is it resnet"),
        ("torchvision/resnet18.V9", "no weights 'V9' of resnet18: choose from IMAGENET1K_V1"),
        ("torchvision/squeezenet1_0", "does not end in a linear layer"),
    ],
)
def test_names_that_do_not_exist_are_one_line(source: str, message: str) -> None:
    library(source.partition("/")[0])
    with pytest.raises(InputError, match=message) as raised:
        load(source, weights=__file__ if "squeeze" in source else None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["timm/resnet18", "transformers/some/model"])
def test_weights_that_cannot_be_downloaded_are_one_line(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library(source.partition("/")[0])
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"the weights of {source} are not in") as raised:
        load(source)
    assert "\n" not in str(raised.value) and "--weights FILE" in str(raised.value)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnitraining.libraries.names.find_spec", lambda _: None)
    for name in ("timm", "torchvision", "transformers"):
        with pytest.raises(InputError, match=rf"pip install 'omnitraining\[{name}\]'"):
            load(f"{name}/resnet18")
