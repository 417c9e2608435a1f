"""Use what is installed: the README's example, a run, the shipped model, files of earlier versions.

Run by an environment that has the wheel and nothing of this repository; the last line is JSON.
"""

import contextlib
import importlib.util
import io
import json
import platform
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import omnitraining
from omnitraining import cli


def main() -> None:
    readme, fixtures = Path(sys.argv[1]), Path(sys.argv[2])
    assert "site-packages" in omnitraining.__file__, omnitraining.__file__
    for extra in ("tensorboard", "gymnasium", "onnx", "optuna", "gradio", "pytest"):
        assert importlib.util.find_spec(extra) is None, f"{extra} is installed"

    example = re.findall(r"```python\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {"__name__": "example"})
    accuracies = [float(value) for value in re.findall(r"([\d.]+) ± ", printed.getvalue())]
    assert len(accuracies) == 4 and min(accuracies) > 30, accuracies

    command("train glyphs.yaml --training.steps 20 --training.val_every 10 --out runs/short")
    command(
        "train glyphs.yaml --training.steps 24 --training.val_every 10 --out runs/short --resume"
    )
    command("evaluate runs/short --tasks 10")
    command("train sinusoids.yaml --training.steps 20 --training.val_every 10 --out runs/waves")
    command("doctor")

    few = torch.arange(6 * 32 * 32).reshape(6, 32, 32).remainder(251).to(torch.uint8).numpy()
    learner = omnitraining.load("glyphs").fit(few, list("aabbcc"))
    learner.save("mine.learner")
    before, after = (x.predict_proba(few) for x in (learner, omnitraining.load("mine.learner")))
    np.testing.assert_allclose(before, after, atol=1e-5)

    for label in "ab":
        Path("few", label).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(few[number]).save(Path("few", label, f"{number}.png"))
    command("adapt glyphs few --out theirs.learner")
    command("predict theirs.learner few/a/0.png few/b/1.png")

    versions = sorted(fixtures.glob("v*"))
    for version in versions:
        for file in version.glob("*.learner"):
            omnitraining.load(file)
    print(
        json.dumps(
            {
                "exact": f"{platform.python_version()}, {torch.__version__}",
                "numpy": np.__version__,
                "files of": [version.name for version in versions],
            }
        )
    )


def command(words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(words.split())
    assert code == 0, f"omni {words} ended with {code}"


if __name__ == "__main__":
    main()
