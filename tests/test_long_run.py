"""Training leaves nothing behind in memory: a short ``benchmarks.load.long_run``."""

import json
import sys

import pytest

from benchmarks.load import RESULTS
from benchmarks.load.long_run import KINDS, day, trained
from omnitraining.experiments.record import read_record


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_as_it_is_after_the_first_epochs(kind: str) -> None:
    # A step that kept its graph, or an epoch that kept a copy of the model, would take more every
    # time; the allocator takes some for itself now and then.
    growth = []
    while len(growth) < 3 and (not growth or growth[-1] >= 2):
        found = trained(kind, steps=80, epochs=20)
        assert found["epochs"] == 20
        growth.append(found["growth in the second half, MiB"])
    assert growth[-1] < 2, growth


def test_a_day_has_as_many_steps_as_the_records_have() -> None:
    rows = json.loads((RESULTS / "benchmarks.json").read_text())
    (timed,) = (row for row in rows if row["case"] == "ProtoNet step, Conv4, 84 px")
    milliseconds = float(timed["milliseconds"].split()[0])
    assert day("classification")[0] == round(24 * 3600 * 1000 / milliseconds)
    facts = read_record(RESULTS / "figure8-cheetah.json").rows["omni-training"].trainings
    velocity = facts["velocity"]
    wanted = 24 * 3600 * velocity.steps[0] / velocity.seconds[0] if velocity.steps else None
    assert wanted is None or day("reinforcement learning")[0] == pytest.approx(wanted, rel=1e-6)
    assert day("reinforcement learning")[0] > 1000
