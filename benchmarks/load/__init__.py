"""Many visitors, many threads, many steps: what load does to answers and to memory."""

from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results"
