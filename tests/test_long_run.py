"""Training leaves nothing behind in memory: a short ``benchmarks.load.long_run``."""

import sys

import pytest

from benchmarks.load.long_run import KINDS, day, trained


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_day_has_as_many_steps_as_the_records_say(kind: str) -> None:
    steps, of = day(kind)
    assert steps > 1000 and of.endswith(".json)")
