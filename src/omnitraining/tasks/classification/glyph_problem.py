"""The built-in benchmarks: glyphs (unseen Latin characters) and glyphs->X (unseen scripts)."""

from omnitraining.errors import InputError
from omnitraining.tasks.classification import digits, glyphs
from omnitraining.tasks.classification.images import LabelledImages
from omnitraining.tasks.classification.problem import Classification, Protocol

BENCHMARKS = ("latin", "greek", "cyrillic", "georgian", "armenian", "digits")


class Glyphs(Classification):
    """Train on Latin characters; test on unseen ones, on other scripts, and on handwriting.

    Args:
        protocol: shape of the tasks.
        benchmarks: test domains: ``"latin"`` (cross-task), ``"greek"``, ``"cyrillic"``,
            ``"georgian"``, ``"armenian"`` and ``"digits"`` (cross-domain).
        size: side of the images in pixels.
        instances: images per class.
        training_classes: use only the first so many training classes; all if not given.
        seed: of the rendering.
    """

    def __init__(
        self,
        protocol: Protocol = Protocol(),  # noqa: B008 (frozen)
        benchmarks: tuple[str, ...] = BENCHMARKS,
        size: int = 32,
        instances: int = 30,
        training_classes: int | None = None,
        seed: int = 0,
    ) -> None:
        for name in benchmarks:
            if name not in BENCHMARKS:
                raise InputError(f"benchmark {name!r} is not one of {', '.join(BENCHMARKS)}")
        if size < 16:
            raise InputError(f"problem.size is {size}: images must be 16 pixels or larger")
        most = max(*protocol.test_shots, protocol.shots) + protocol.queries
        if instances < most:
            raise InputError(
                f"problem.instances is {instances}, fewer than the {most} images that a class "
                "needs for its shots and queries"
            )

        def load(script: str, split: str) -> LabelledImages:
            return glyphs.load(script, split, size=size, instances=instances, seed=seed)

        training = load("latin", "train")
        if training_classes is not None:
            some = training.labels < training_classes
            training = LabelledImages(
                training.images[some],
                training.labels[some],
                training.classes[:training_classes],
                training.name,
            )
        super().__init__(
            training,
            load("latin", "validation"),
            {n: digits.load(size=size) if n == "digits" else load(n, "test") for n in benchmarks},
            protocol,
        )
