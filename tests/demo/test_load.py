"""The demo under load, and its requests malformed: a short ``benchmarks.load.demo``."""

import pytest

from benchmarks.load.demo import measured

pytest.importorskip("gradio")
pytestmark = pytest.mark.slow


def test_visitors_are_kept_apart_and_malformed_requests_do_no_harm() -> None:
    found = measured(visitors=50, waves=1, requests=90)
    assert found["missing"] == 0
    assert found["right"] == found["answers"] == 400
    assert found["names of others that were seen"] == 0
    wrong = found["malformed"]
    assert wrong["with a traceback or a path"] == 0
    assert wrong["server errors"] == wrong["hanging"] == wrong["page not served after"] == 0
    assert found["exit code"] == 0
    assert found["temporary files left"] == 0
