"""What training at full size takes: counts against closed forms."""

import pytest

from benchmarks.full_size import step, without_data
from omnitraining.experiments.record import Values

CONVOLUTIONS = [(84, 3 * 9), (42, 64 * 9), (21, 64 * 9), (10, 64 * 9)]
"""Side of the image, and products per value of the output, of the layers of a Conv4."""


def baseline(**more: object) -> Values:
    return {
        "method": "pre-training",
        "problem": {"class_path": "Photos", "init_args": {"training": ["cub"], "size": 84}},
        "backbone": {"class_path": "Conv4"},
        **more,
    }


def test_operations_and_memory_are_the_sums_over_the_layers() -> None:
    layers = [2 * side**2 * 64 * products for side, products in CONVOLUTIONS]
    layers.append(2 * 64 * 5 * 5 * 100)  # the head
    # Forward, to the weights, and to the input, which the images themselves do without.
    expected = 64 * (3 * sum(layers) - layers[0])
    operations, size = step(*without_data(baseline()))
    assert operations == pytest.approx(expected)
    # Of every layer at least its input, output and normalized output are kept.
    values = 64 * sum(2 * side**2 * 64 for side, _ in CONVOLUTIONS)
    assert 4 * values < size < 4 * 4 * values


def test_a_run_with_a_teacher_counts_the_forward_pass_of_the_teacher() -> None:
    rfs = {"pretraining": {"class_path": "RFS"}}
    alone, _ = step(*without_data(baseline(**rfs)))
    taught, _ = step(*without_data(baseline(**rfs, teacher_run="runs/rfs-1-0")))
    forward = 64 * (sum(2 * s**2 * 64 * p for s, p in CONVOLUTIONS) + 2 * 64 * 25 * 100)
    assert taught - alone == pytest.approx(forward)


@pytest.mark.parametrize("metatraining", ["ProtoNet", "MAML", "GNN", "MetaOptNet"])
def test_algorithms_can_be_counted(metatraining: str) -> None:
    values = baseline(method="meta-training", metatraining={"class_path": metatraining})
    operations, size = step(*without_data(values))
    # At the least, a forward and a backward pass over 25 support images and 80 queries.
    assert operations > 105 * 2 * sum(2 * s**2 * 64 * p for s, p in CONVOLUTIONS)
    assert size > 0
