"""Many threads, many steps: effects of load on predictions and memory."""

from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results"
