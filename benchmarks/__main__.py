"""``make bench``: one line per claim, with the goal beside the measured ratio."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.classification import loading, tasks_at_once, test_tasks
from benchmarks.distributed import distributed
from benchmarks.learner import frozen, learner
from benchmarks.memory import memory
from benchmarks.reinforcement import reinforcement
from benchmarks.streaming import streaming
from benchmarks.timing import Row, ratio
from omnitraining.adaptation.inner_loop import adapt_and_predict
from omnitraining.backbones import MLP, Conv4
from omnitraining.batches import Episode
from omnitraining.losses import squared_error
from omnitraining.metatraining import MAML, ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.network import Network
from omnitraining.omninet import OmniNet
from omnitraining.pretraining import Baseline, L2Regression, LogisticHead, SGDHead
from omnitraining.tasks.classification.glyph_problem import Glyphs
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.teacher import Teacher

Step = Callable[[], object]


def omni_step() -> list[Row]:
    """One Omni step against the passes of plain networks that it consists of."""
    rows = []
    glyphs = Glyphs(benchmarks=("latin",))
    random = torch.Generator().manual_seed(0)
    batch, episode = glyphs.minibatch(0, random), glyphs.episode(0, random)

    rows.append(
        _omni_row("glyphs, Conv4-32, ProtoNet", partial(_classifier, glyphs), batch, episode)
    )
    waves = Sinusoids(waves=10)
    batch, episode = waves.minibatch(0, random), waves.episode(0, random)

    def regression(method: Method) -> Model:
        maml = MAML(task="regression")
        return build_model(
            method, MLP, waves, L2Regression(), maml, OmniLoss(distill_weight=3), OmniNetOptions()
        )

    rows.append(_omni_row("sinusoid, MLP, MAML", regression, batch, episode))
    return rows


def _classifier(glyphs: Glyphs, method: Method) -> Model:
    parts = glyphs, Baseline(), ProtoNet(), OmniLoss(distill_weight=3), OmniNetOptions()
    model = build_model(method, lambda: Conv4(1, 32), *parts)
    return model.to(memory_format=torch.channels_last)


def _omni_row(name: str, build: Callable[[Method], Model], batch: object, episode: object) -> Row:
    omni, parts = build("omni-training"), [build("ensemble"), build("joint-training")]
    teacher, plain_teacher = Teacher(omni), Teacher(parts[0])

    def step(model: Model, target: Teacher | None) -> None:
        model.zero_grad()
        model(batch, episode, target.model if target else None)["total"].backward()

    def ours() -> None:
        step(omni, teacher)

    def sum_of_parts() -> None:  # pre- and meta-pass with their teachers', and the joint passes
        step(parts[0], plain_teacher)
        step(parts[1], None)

    value, a, b = ratio(ours, sum_of_parts)
    return ("Omni step / its plain passes", name, value, "<= 1.10", _ms(a, b))


def methods() -> list[Row]:
    """A step of Omni-Training as the glyphs experiment has it, against a step of each rival."""
    glyphs = Glyphs(benchmarks=("latin",))
    random = torch.Generator().manual_seed(0)
    batch, episode = glyphs.minibatch(0, random), glyphs.episode(0, random)

    def stepper(method: Method) -> Step:
        loss, options = OmniLoss(distill_weight=0), OmniNetOptions(shared_until="8")
        model = build_model(
            method, lambda: Conv4(1, 32), glyphs, Baseline(), ProtoNet(), loss, options
        ).to(memory_format=torch.channels_last)
        teacher, optimizer = Teacher(model), torch.optim.AdamW(model.parameters())

        def step() -> None:
            optimizer.zero_grad()
            model(batch, episode)["total"].backward()
            optimizer.step()
            teacher.update()

        return step

    ours, rows = stepper("omni-training"), []
    for rival in ("pre-training", "meta-training", "joint-training", "ensemble"):
        value, a, b = ratio(ours, stepper(rival))
        rows.append(("Omni step / step of a rival", rival, value, "", _ms(a, b)))
    return rows


def folding() -> list[Row]:
    """A folded Omni-Layer against a convolution and a 1x1 convolution, summed."""
    rows, ratios = [], []
    for channels, side, stride in (
        (32, 32, 1),
        (64, 16, 1),
        (64, 42, 1),
        (128, 28, 2),
        (256, 14, 1),
    ):
        net = OmniNet(nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1, bias=False)))
        net = net.to(memory_format=torch.channels_last)
        branch = nn.Conv2d(channels, channels, 1, stride, bias=False)
        branch = branch.to(memory_format=torch.channels_last)
        x = torch.randn(64, channels, side, side).to(memory_format=torch.channels_last)
        x.requires_grad_()

        def folded(net: OmniNet = net, x: torch.Tensor = x) -> None:
            net.pre(x).sum().backward()

        def two(net: OmniNet = net, branch: nn.Module = branch, x: torch.Tensor = x) -> None:
            (net.joint(x) + branch(x)).sum().backward()

        value, a, b = ratio(folded, two, rounds=9)
        ratios.append(value)
        shape = f"{channels} channels, {side} px, stride {stride}"
        rows.append(("folded / two convolutions", shape, value, "", _ms(a, b)))
    mean = statistics.geometric_mean(ratios)
    rows.append(("folded / two convolutions", "geometric mean", mean, "<= 0.80", ""))
    return rows


def batched_maml() -> list[Row]:
    """Adapting many tasks: a Python loop against all at once."""
    network = Network(MLP(), nn.Linear(64, 1))
    rows = []
    for tasks, second_order in ((100, False), (25, True)):
        episode = Episode(*(torch.randn(tasks, 10, 1) for _ in range(4)))

        def together(episode: Episode = episode, second: bool = second_order) -> None:
            with torch.set_grad_enabled(second):
                out = adapt_and_predict(network, episode, squared_error, (1,), 0.02, second)
                if second:
                    out.sum().backward()

        def loop(episode: Episode = episode, second: bool = second_order) -> None:
            for task in range(len(episode.support_x)):
                together(episode[task : task + 1], second)

        value, a, b = ratio(loop, together, rounds=7)
        kind = "training, second order" if second_order else "adaptation at test"
        rows.append(("MAML loop / batched", f"{tasks} waves, {kind}", value, ">= 10", _ms(a, b)))
    return rows


def heads() -> list[Row]:
    """Fitting the heads of 600 tasks: one by one against one batched solve."""
    rows = []
    support, labels = (
        torch.randn(600, 25, 128),
        torch.arange(5).repeat_interleave(5).expand(600, -1),
    )
    query = torch.randn(600, 80, 128)
    for head in (LogisticHead(), replace(SGDHead(), passes=10)):

        def together(head: LogisticHead | SGDHead = head) -> None:
            head.logits(support, labels, query, 5)

        def loop(head: LogisticHead | SGDHead = head) -> None:
            for task in range(600):
                one = slice(task, task + 1)
                head.logits(support[one], labels[one], query[one], 5)

        value, a, b = ratio(loop, together, rounds=3)
        name = f"{type(head).__name__}, 600 x 25 x 128"
        rows.append(("heads one by one / batched", name, value, ">= 30", _ms(a, b)))
    return rows


def data_share() -> list[Row]:
    """Time spent on drawing and preparing batches, within a training step."""
    glyphs = Glyphs(benchmarks=("latin",))
    model = _classifier(glyphs, "omni-training")
    teacher, optimizer = Teacher(model), torch.optim.AdamW(model.parameters())
    random = torch.Generator().manual_seed(0)
    data, whole = [], []
    for step in range(12):
        start = time.perf_counter()
        batch, episode = glyphs.minibatch(step, random), glyphs.episode(step, random)
        data.append(time.perf_counter() - start)
        optimizer.zero_grad()
        model(batch, episode, teacher.model)["total"].backward()
        optimizer.step()
        teacher.update()
        whole.append(time.perf_counter() - start)
    share = statistics.median(d / w for d, w in zip(data[2:], whole[2:], strict=True))
    seconds = statistics.median(data[2:]), statistics.median(whole[2:])
    return [("data / step", "glyphs, Conv4-32, ProtoNet", share, "<= 0.05", _ms(*seconds))]


def bfloat16() -> list[Row]:
    """bf16 autocast against float32; it pays only where the hardware multiplies bf16."""
    net = Conv4(1, 64).to(memory_format=torch.channels_last)
    x = torch.randn(64, 32, 32, 1).permute(0, 3, 1, 2)

    def low() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(x).float().square().mean()
        loss.backward()

    value, a, b = ratio(low, lambda: net(x).square().mean().backward(), rounds=7)
    return [("bfloat16 / float32", "Conv4-64 on the CPU", value, "< 1 where it pays", _ms(a, b))]


def _ms(first: float, second: float) -> str:
    return f"{first * 1e3:.3g} / {second * 1e3:.3g}"


def main() -> None:
    """Measure everything, print a table and, with a path as argument, write a record."""
    table = Table(title=f"ratios measured side by side, {torch.get_num_threads()} CPU threads")
    for column in ("what", "case", "ratio", "goal", "milliseconds"):
        table.add_column(column, justify="left" if column in ("what", "case") else "right")
    rows: list[Row] = []
    measures = (
        *(omni_step, methods, folding, batched_maml, heads, data_share, bfloat16),
        *(loading, streaming, test_tasks, tasks_at_once, learner, frozen),
        *(reinforcement, distributed, memory),
    )
    for measure in measures:
        print(f"measuring {measure.__name__} ...", file=sys.stderr, flush=True)
        torch.manual_seed(0)
        rows += measure()
    for what, case, value, goal, milliseconds in rows:
        table.add_row(what, case, f"{value:.3g}", goal, milliseconds)
    Console(width=120).print(table)
    if len(sys.argv) > 1:
        names = ("what", "case", "ratio", "goal", "milliseconds")
        record = [dict(zip(names, row, strict=True)) for row in rows]
        Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
