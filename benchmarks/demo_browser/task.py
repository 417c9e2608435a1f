"""The files that the visitor of the demo gives, and what must become of them."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from omnitraining import FewShotClassifier
from omnitraining.demo.predictions import ACCEPT_RATE, PERHAPS

SHOTS, QUERIES = 5, 3
NAMES = (
    "crab",
    "a class of golden dogs with a name that is too long for one line of a phone",
    "Würmer & <b>Schlangen",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützen",
)


class Task:
    """Files of a few classes, with some that are no pictures, and what a learner predicts.

    Args:
        data: folder of class folders.
        folder: for the files.
    """

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder, self.asked = folder / "my photos", []
        classes = sorted(path for path in data.iterdir() if path.is_dir())[: len(NAMES)]
        for name, source in zip(NAMES, classes, strict=True):
            images = sorted(path for path in source.iterdir() if path.is_file())
            target = self.folder / name
            target.mkdir(parents=True)
            for image in images[:SHOTS]:
                shutil.copy(image, target)
            for number, image in enumerate(images[SHOTS : SHOTS + QUERIES]):
                copy = folder / f"question {len(self.asked)} ({number}) é{image.suffix}"
                self.asked.append(Path(shutil.copy(image, copy)))
        self.learner = FewShotClassifier("photos", "ensemble", ACCEPT_RATE).fit(self.folder)
        self.asked.append(self._unlike(folder))
        (self.folder / "notes.txt").write_text("no picture")
        (self.folder / "crab" / "broken.jpg").write_bytes(b"no picture")
        (self.folder / "crab" / "old").mkdir()
        shutil.copy(self.asked[0], self.folder / "crab" / "old" / "1.jpg")
        self.archive = Path(shutil.make_archive(str(folder / "photos"), "zip", self.folder))

    def _unlike(self, folder: Path) -> Path:
        """A picture that the learner rejects: a pattern."""
        chance, path = np.random.default_rng(0), folder / "pattern.png"
        for size in (2, 4, 8, 16, 48, 96):
            for colors in (1, 3):
                noise = chance.integers(0, 2, (size, size, colors), np.uint8) * 255
                pixels = np.broadcast_to(noise, (size, size, 3))
                Image.fromarray(np.ascontiguousarray(pixels)).resize((192, 192), 0).save(path)
                if self.learner.predict([path])[0] is None:
                    return path
        raise AssertionError("no pattern is rejected")

    def verdicts(self) -> list[str]:
        """What the page must show for each picture."""
        probabilities, similarity = self.learner.predict_with_scores(self.asked)
        rejected = self.learner.to_labels(probabilities, similarity) == None  # noqa: E711
        labels = self.learner.classes_[probabilities.argmax(1)]
        return [
            "unlike all classes" if none else f"perhaps {label}" if p < PERHAPS else str(label)
            for label, p, none in zip(labels, probabilities.max(1), rejected, strict=True)
        ]
