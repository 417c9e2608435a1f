"""What the experiments on photographs take at full size: ``python -m benchmarks.full_size``.

Counted, not measured. One training step of every run is traced on tensors that have a shape and no
data: its floating-point operations are counted, and what autograd keeps for the backward pass is
added up. Hours are these operations at the speed of `FLOPS`; memory is that of weights, teacher,
gradients, the state of Adam, and what is kept, and the peak of a real run is higher. Validation,
test, and reading files are not in it. Nothing here needs the data, a GPU, or much memory.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from omnitraining.batches import Episode, MiniBatch
from omnitraining.config.run_config import RunConfig, instantiate, parse
from omnitraining.evaluation import Evaluation, Inference
from omnitraining.experiments.experiment import experiments
from omnitraining.experiments.reproduction import plan
from omnitraining.model import Model
from omnitraining.runs.run import provenance
from omnitraining.tasks.base import Problem, Supervised
from omnitraining.tasks.classification.problem import EpisodeConfig
from omnitraining.teacher import Teacher

RECORD = Path(__file__).parents[1] / "results" / "full-size.json"
FLOPS = 20e12
"""In a second: some 800 images of a ResNet-50, of 24.6 GFLOP each, as NVIDIA trains it on an A100
in TF32."""
CLASSES = 100  # of one training domain; how many decides the size of one linear layer
GIB = 2**30


class Shapes(Supervised):
    """Photographs of which only the shapes are known.

    Args:
        domains: of training.
        protocol: shape of the tasks.
        size: side of the images in pixels.
    """

    one_joint_head = False

    def __init__(
        self,
        domains: int,
        protocol: EpisodeConfig = EpisodeConfig(),  # noqa: B008
        size: int = 84,
    ) -> None:
        self.protocol, self.image = protocol, (3, size, size)
        self.pre_outputs, self.meta_outputs = domains * CLASSES, protocol.ways

    def example(self) -> Tensor:
        return torch.zeros(2, *self.image)

    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        count = self.protocol.batch
        return MiniBatch(torch.zeros(count, *self.image), torch.zeros(count, dtype=torch.long))

    def episode(self, step: int, random: torch.Generator) -> Episode:
        ways = self.protocol.ways
        counts = [ways * self.protocol.shots, ways * self.protocol.queries]
        x = [torch.zeros(1, count, *self.image) for count in counts]
        y = [torch.arange(ways).repeat_interleave(count // ways)[None] for count in counts]
        return Episode(x[0], y[0], x[1], y[1], ways)

    def to(self, device: torch.device) -> None:
        raise NotImplementedError

    def with_test_shots(self, shots: tuple[int, ...]) -> Problem:
        raise NotImplementedError

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        raise NotImplementedError

    def evaluate(self, model: Model, inference: Inference, tasks: int) -> Evaluation:
        raise NotImplementedError


class Counter(TorchDispatchMode):
    """Adds up floating-point operations; torch's own counter does not take MAML's inner steps."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=made)
        return made


def without_data(values: dict[str, Any]) -> tuple[RunConfig, bool]:
    """A planned run, on shapes in place of photographs, and whether another run teaches it."""
    options = values["problem"]["init_args"]
    known = {name: options[name] for name in ("protocol", "size") if name in options}
    shapes = {"domains": len(options["training"]), **known}
    problem = {"class_path": f"{__name__}.Shapes", "init_args": shapes}
    own = {
        name: value for name, value in values.items() if name not in ("teacher_run", "start_from")
    }
    return instantiate(parse({**own, "problem": problem})), "teacher_run" in values


def step(experiment: RunConfig, has_teacher: bool) -> tuple[float, float]:
    """Floating-point operations of one training step, and bytes that it needs at least."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    model = experiment.assembled(experiment.assembled() if has_teacher else None)
    teacher = Teacher(model, model.loss.ema_decay).model
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sizes = sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
    counter = Counter()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
        own = {tensor.untyped_storage()._cdata for tensor in fake.values()}
        samples = experiment.problem.samples(0, torch.Generator(), model)
        with counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = functional_call(model, fake, (samples.batch, samples.episode, teacher))
            terms["total"].backward()
    activations = sum(size for storage, size in kept.items() if storage not in own)
    return counter.total, float(5 * sizes + activations)


def counted() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each run of each experiment on photographs, counted once however many share it."""
    known: dict[Path, dict[str, Any]] = {}
    for experiment in experiments():
        if experiment.config["problem"]["class_path"] != "Photos":
            continue
        for job in plan(
            experiment, Path(experiment.folder or experiment.name), experiment.seeds[:1]
        ):
            if job.folder not in known:
                run_config, has_teacher = without_data(job.values)
                operations, size = step(run_config, has_teacher)
                steps = run_config.training.steps
                known[job.folder] = {
                    "run": str(job.folder),
                    "steps": steps,
                    "teraflop per step": round(operations / 1e12, 3),
                    "hours": round(operations * steps / FLOPS / 3600, 1),
                    "GiB": round(size / GIB, 1),
                }
                print(job.folder, known[job.folder], flush=True)
            yield experiment.name, f"{job.row}, {job.setting}", known[job.folder]


def main() -> None:
    """Count all, and write the record."""
    experiments: dict[str, dict[str, Any]] = {}
    for name, row, found in counted():
        experiments.setdefault(name, {})[row] = found
    record = {
        "title": "Training at full size, counted and not measured",
        "command": "python -m benchmarks.full_size",
        "TFLOP per second": FLOPS / 1e12,
        "experiments": experiments,
        "provenance": provenance(),
    }
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
