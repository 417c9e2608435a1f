"""The picture of Figure 11: a row per flow, a column per image; warm colors are evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from omnitraining.analysis.attention import attention_maps, heat, predictor_maps
from omnitraining.batches import channels_last
from omnitraining.config.run_config import load_run
from omnitraining.errors import InputError
from omnitraining.experiments.figures.canvas import save, subplots
from omnitraining.learner import FewShotClassifier, TrainedModel
from omnitraining.learner.inputs import Images
from omnitraining.learner.sources import Source
from omnitraining.runs import run_data
from omnitraining.runs.run import Run
from omnitraining.tasks.classification.episodes import EpisodeSampler
from omnitraining.tasks.classification.problem import Classification

SHOTS = 5


@dataclass(frozen=True)
class Row:
    """One row of the picture.

    Attributes:
        name: of the model and its flow.
        pixels: the images as that model takes them, [B, C, H, W] in [0, 1].
        heat: evidence for the class, from 0 to 1, [B, H, W].
        titles: above each image; empty without titles.
    """

    name: str
    pixels: Tensor
    heat: Tensor
    titles: tuple[str, ...]


def rows_of_task(
    source: Source, support: Images, labels: Sequence[str], images: Images, answers: Sequence[str]
) -> list[Row]:
    """Rows of the flows of a model that learns the classes of a task.

    Args:
        source: what `omnitraining.learner.load` takes.
        support: images of the classes to distinguish.
        labels: the class of each.
        images: images to explain.
        answers: the class to explain in each image; the predicted class if empty.

    Raises:
        InputError: an image cannot be read, or the model cannot learn these classes.
    """
    learner = FewShotClassifier(source, flow="ensemble").fit(support, list(labels))
    pixels, names = learner.preprocess(images), [str(name) for name in learner.classes_]
    with torch.no_grad():
        predicted = learner.predictor_(pixels).argmax(1)
    classes = torch.tensor([names.index(a) for a in answers]) if answers else predicted
    maps = predictor_maps(learner.predictor_, pixels, classes.to(pixels.device))
    titles = tuple(names[index] for index in classes)
    title = source.name if isinstance(source, TrainedModel) else Path(source).name
    return [
        Row(f"{title}\n{flow}", pixels, heat(evidence, pixels), titles)
        for flow, evidence in maps.items()
    ]


def rows_of_images(trained: TrainedModel, images: Images) -> list[Row]:
    """Rows of the flows of a model: what its representations of the images are made of.

    Raises:
        InputError: an image cannot be read, or the model takes no images.
    """
    inputs = trained.image_inputs
    pixels = inputs.pixels(images).to(trained.device) / 255
    mean, std = (torch.tensor(v).view(-1, 1, 1).to(pixels) for v in (inputs.mean, inputs.std))
    rows = []
    for flow in trained.model.trained_flows:
        head = trained.model.heads_of(flow, *trained.inference.heads)[0]
        backbone = nn.Sequential(trained.model.trunk, trained.plain_backbone(head.name)).eval()
        evidence = attention_maps(backbone, channels_last((pixels - mean) / std))
        rows.append(
            Row(
                f"{trained.name}\n{flow}",
                pixels,
                heat(evidence, pixels),
                (),
            )
        )
    return rows


def first_task(run: Run, images: int) -> tuple[Tensor, list[str], Tensor, list[str]]:
    """A task of a run's first benchmark: support images, their labels, images to explain, theirs.

    It is the first task drawn with a fixed seed, not a chosen one: five support images of each of
    five classes, and images to explain, one of each class in turn.

    Args:
        run: on images.
        images: number of images to explain.

    Raises:
        InputError: the run is not on images.
    """
    problem = load_run(run).problem
    run_data.check(run, problem)
    if not isinstance(problem, Classification):
        raise InputError(f"run {run.path} is of {type(problem).__name__}, not of images")
    data = next(iter(problem.benchmarks.values()))
    ways = min(5, len(data.classes))
    each = -(-images // ways)
    drawn = EpisodeSampler(data, ways, SHOTS, each).draw(1, torch.Generator().manual_seed(0))
    support, query = drawn.support[0].flatten(), drawn.query[0].T.flatten()[:images]
    names = [[data.classes[label] for label in data.labels[part]] for part in (support, query)]
    return data.images[support], names[0], data.images[query], names[1]


def draw(rows: Sequence[Row], path: Path) -> Path:
    """The picture: the images alone in the first row, then a row for each flow.

    Args:
        rows: with equally many images each.
        path: the picture.

    Raises:
        InputError: pictures cannot be written in files of this kind.
    """
    count, agree = len(rows[0].pixels), len({row.titles for row in rows}) == 1
    figure, axes = subplots(
        len(rows) + 1,
        count,
        figsize=(1.3 * count + 1.6, 1.35 * (len(rows) + 1)),
    )
    for line, row in zip(axes, [None, *rows], strict=True):
        shown = row or rows[0]
        # Classes stand above the images, or above each row where flows explain different ones.
        titles = shown.titles if agree == (row is None) else ()
        for column, axis in enumerate(line):
            axis.set(xticks=[], yticks=[])
            image = shown.pixels[column].permute(1, 2, 0).numpy(force=True)
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)  # gray images are [H, W, 1]
            if row is not None:
                axis.imshow(
                    row.heat[column].numpy(force=True), cmap="turbo", vmin=0, vmax=1, alpha=0.45
                )
            if titles:
                axis.set_title(titles[column], fontsize=8)
        name = "image" if row is None else row.name
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.tight_layout(pad=0.4)
    try:
        return save(figure, path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
