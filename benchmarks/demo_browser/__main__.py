"""The demo in a real browser, with photographs: ``python -m benchmarks.demo_browser --data DIR``.

DIR holds a folder of photographs for each class, as the test classes of mini-ImageNet. A headless
Chromium goes through the whole page as a visitor at a desktop, with a phone and with the keyboard
alone, in some minutes. What the page shows is compared with the predictions of a learner that is
fitted to the same files here, and the learner that the page gives must predict the same again. The
first difference ends the program with an error. Pictures of the page are left in --pictures, for
inspection.

It needs Gradio and what `benchmarks.demo_browser.visitor` names.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from benchmarks.demo_browser.task import NAMES, SHOTS, Task
from benchmarks.demo_browser.visitor import DESKTOP, PATIENCE, PHONE, Visitor, chromium
from omnitraining import FewShotClassifier, load
from omnitraining.demo.predictions import PERHAPS
from omnitraining.demo.session import IMAGES

REACHED = ["start", "source", "name", "files", "add", "kind", "file", "predict", "save", "onnx"]


def example(page: Visitor) -> None:
    """One press shows an example."""
    assert "No classes yet" in page.text("#classes") and "No predict" in page.text("#result")
    page.picture("empty")
    page.click("#start")
    page.element(".omni-label")
    kinds = ["beach", "forest", "desert", "mountains", "city at night"]
    assert page.texts(".omni-label") == kinds, page.texts(".omni-label")
    assert page.wait_for_text("#fit", "Accuracy on these pictures: 100%")
    page.picture("example")
    page.click("#another")
    page.wait(lambda: page.texts(".omni-label") == kinds, "no other example")


def several_classes(page: Visitor, task: Task) -> None:
    """A folder, dropped or chosen, and a zip of it give the same classes."""
    seen = []
    for source in ("Folder", "Zip"):
        page.open()
        page.choose("source", source, f"#{source.lower()}")
        given = task.folder if source == "Folder" else task.archive
        page.give(f"#{source.lower()}", given)
        page.picture(f"{source.lower()} chosen")
        page.click("#add")
        message = page.wait_for_text(
            "#class-message", f"{len(NAMES) * SHOTS} pictures of {len(NAMES)} classes"
        )
        assert "1 file that is no image by its name (notes.txt)" in message, message
        assert "1 folder inside a class (crab/old)" in message, message
        assert "broken.jpg is not an image" in message, message
        assert page.texts(".omni-classes strong") == sorted(NAMES), page.texts(".omni-classes")
        seen.append([image.get_attribute("src") for image in page.elements(".omni-classes img")])
    assert len(seen[0]) == len(NAMES) * SHOTS and seen[0] == seen[1]
    report = task.learner.fit_report_
    right = round((report.accuracy or 0) * report.images)
    page.wait_for_text(
        "#fit", f"{report.accuracy:.0%} ({right} of {report.images}, each held out once"
    )
    assert ("These pictures are unlike" in page.text("#fit")) == (report.calibrated is False)


def questions(page: Visitor, task: Task) -> None:
    """Several pictures at once, with all three verdicts; then one, with its flows."""
    page.give("#file", *task.asked)
    page.click("#predict")
    page.element(".omni-label")
    found, wanted = page.texts(".omni-label"), task.verdicts()
    assert found == wanted, (found, wanted)
    kinds = {text.split()[0] if text.split()[0] in ("perhaps", "unlike") else "" for text in found}
    assert kinds == {"", "perhaps", "unlike"}, f"give other data: {found}"
    assert page.texts(".omni-name") == [path.name for path in task.asked]
    assert f"below {PERHAPS:.0%}" in page.text("#result")
    assert "nearest: " in page.texts(".omni-verdict")[-1]
    assert not page.cut(), page.cut()
    page.picture("several")
    page.give("#file", task.asked[0])
    page.click("#predict")
    page.wait(lambda: len(page.elements(".omni-label")) == 1, "more than one prediction")
    assert len(page.elements(".omni-flows img[alt^='attention map']")) == 3
    page.picture("one")


def download(page: Visitor, task: Task, downloads: Path) -> None:
    """One press gives a file that predicts the same."""
    for button, name in (("save", "classes.learner"), ("onnx", "classes.onnx")):
        page.click(f"#{button}")
        page.wait_for_text("#save-message", f"{name} is downloaded")
        page.wait((downloads / name).is_file, f"no {name}")
    page.picture("downloaded")
    learner = load(downloads / "classes.learner")
    assert isinstance(learner, FewShotClassifier)
    found = learner.predict_proba(task.asked)
    np.testing.assert_allclose(found, task.learner.predict_proba(task.asked), atol=1e-4)


def one_by_one(page: Visitor, task: Task) -> None:
    """Classes by name, from files and the camera; a picture becomes an example; removal."""
    page.open()
    files = sorted((task.folder / "crab").iterdir())
    for name, paths in (("crab", files[:SHOTS]), ("other", task.asked[:2])):
        page.fill("#name textarea, #name input", name)
        page.give("#files", *(path for path in paths if path.is_file()))
        page.click("#add")
        page.wait_for_text("#class-message", f"“{name}” now has")
    page.choose("source", "Camera", "#camera")
    page.choose("kind", "Camera", "#snapshot")
    page.fill("#name textarea, #name input", "from the camera")
    snap(page, "#camera")
    page.click("#add")
    page.wait_for_text("#class-message", "“from the camera” now has 1 picture.")
    snap(page, "#snapshot")
    page.picture("camera")
    page.click("#predict")
    page.wait(lambda: page.texts(".omni-name") == ["picture"], "no prediction of the camera")
    page.click("#labeling button")
    page.choose("target", "from the camera", "#label")
    page.click("#label")
    page.wait_for_text("#query-message", "The picture was added to “from the camera”.")
    page.wait_for_text("#classes", "from the camera 2 pictures")
    page.picture("classes")
    page.click("#removing button")
    page.choose("removed", "other", "#remove")
    page.click("#remove")
    page.wait_for_text("#class-message", "“other” was removed.")
    assert page.texts(".omni-classes strong") == ["crab", "from the camera"]
    page.click("#clear")
    page.wait_for_text("#classes", "No classes yet")


def snap(page: Visitor, camera: str) -> None:
    """Take a picture with the camera."""
    page.wait(lambda: page.elements(f"{camera} button")[1:], f"no button in {camera}")[0].click()
    capture = f'{camera} button[aria-label="capture photo"]'
    width = f"return document.querySelector('{camera} video')?.videoWidth"
    page.wait(lambda: page.driver.execute_script(width), f"no film in {camera}")
    page.click(capture)
    page.wait(lambda: not page.elements(capture), f"no picture in {camera}")
    time.sleep(0.5)  # until Gradio has it


def drawing(page: Visitor) -> None:
    """A drawing is predicted; an empty one is not."""
    page.open()
    page.click("#start")
    page.element(".omni-label")
    page.choose("kind", "Draw", "#drawing canvas")
    page.click("#predict")
    page.wait_for_text("#query-message", "Draw something first.")
    canvas = page.element("#drawing canvas")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    stroke = (
        ActionChains(page.driver).move_to_element_with_offset(canvas, -50, -50).click_and_hold()
    )
    for x, y in ((20, 80), (60, -90), (20, 90)):
        stroke.move_by_offset(x, y)
    stroke.release().perform()
    page.click("#predict")
    page.wait(lambda: page.texts(".omni-name") == ["drawing"], "no prediction of the drawing")
    page.picture("drawing")


def wrong_input(page: Visitor, task: Task, folder: Path) -> None:
    """Each is one sentence in its place."""
    page.open()
    broken, many = folder / "broken.zip", folder / "many"
    broken.write_bytes(b"no archive")
    many.mkdir()
    for number in range(IMAGES + 1):
        shutil.copy(task.asked[0], many / f"{number}{task.asked[0].suffix}")
    page.click("#predict")
    page.wait_for_text("#query-message", "Choose a picture first.")
    page.click("#save")
    page.wait_for_text("#save-message", "Add two classes first")
    page.click("#add")
    page.wait_for_text("#class-message", "Give the class a name first.")
    page.fill("#name textarea, #name input", "broken")
    page.give("#files", task.folder / "crab" / "broken.jpg")
    page.click("#add")
    page.wait_for_text("#class-message", "broken.jpg is not an image")
    page.picture("wrong")
    page.choose("source", "Folder", "#folder")
    page.click("#add")
    page.wait_for_text("#class-message", "Choose a folder first.")
    page.choose("source", "Zip", "#zip")
    page.give("#zip", broken)
    page.click("#add")
    page.wait_for_text("#class-message", "broken.zip is no zip archive, or a damaged one.")
    page.choose("source", "Folder", "#folder")
    page.give("#folder", many)
    page.click("#add")
    page.wait_for_text(
        "#class-message", f"A class takes {IMAGES} pictures, the first by name: “many” (21)."
    )
    page.wait_for_text("#classes", "One class so far")
    page.give("#file", *many.iterdir())
    page.click("#predict")
    page.wait_for_text("#query-message", f"These are {IMAGES + 1} pictures: 20 at most at a time.")


def phone(page: Visitor, task: Task) -> None:
    """On a narrow screen nothing is cut, and the prediction comes into view."""
    page.resize(PHONE)
    page.open()
    page.picture("phone empty")
    page.choose("source", "Zip", "#zip")
    page.give("#zip", task.archive)
    page.click("#add")
    page.wait_for_text("#class-message", "pictures of")
    page.give("#file", *task.asked)
    page.click("#predict")
    page.element(".omni-label")
    assert page.texts(".omni-label") == task.verdicts()
    script = "return document.getElementById('result').getBoundingClientRect().top"
    page.wait(lambda: page.driver.execute_script(script) < PHONE[1], "no prediction in view")
    page.click("#result summary")
    assert not page.cut(), page.cut()
    page.picture("phone")
    page.resize(DESKTOP)


def keyboard(page: Visitor) -> None:
    """Tab reaches everything, the space bar chooses sources, Enter presses and opens."""
    page.open()
    seen: list[str] = []
    for _ in range(60):
        page.press(Keys.TAB)
        seen += page.focused()
    reached = [name for name in REACHED if name in seen]
    assert reached == REACHED, reached
    page.driver.execute_script("document.getElementById('start').focus()")
    page.press(Keys.ENTER)
    page.element(".omni-label")
    page.driver.execute_script("document.querySelector('#source input:checked').focus()")
    for key in (Keys.TAB, Keys.TAB, Keys.SPACE):  # each choice of Gradio's is a stop of its own
        page.press(key)
    page.element("#folder input[type=file]")
    page.driver.execute_script("document.querySelector('#result summary').focus()")
    page.press(Keys.ENTER)
    page.wait(lambda: page.element("#result details").get_attribute("open"), "not opened")
    page.picture("keyboard")


@contextmanager
def served(temporary: Path) -> Iterator[str]:
    """The address of a demo, whose temporary files must be gone at the end."""
    code = "import sys; from omnitraining.cli import main; sys.exit(main(['demo']))"
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())
        assert found is not None, "the demo did not start"
        yield found[0]
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
        assert not [*temporary.glob("omni-demo-*")]  # what was uploaded
    finally:
        server.kill()


def main() -> None:
    """Visit the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos per class")
    parser.add_argument("--pictures", type=Path, default=Path("runs/demo-pictures"))
    options = parser.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of the learner; the page shows it
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        downloads, temporary = folder / "downloads", folder / "temporary"
        for each in (downloads, temporary):
            each.mkdir()
        task = Task(options.data, folder)
        with served(temporary) as url, chromium(downloads) as driver:
            page = Visitor(driver, url, options.pictures)
            for part, given in (
                *((example, ()), (several_classes, (task,)), (questions, (task,))),
                *((download, (task, downloads)), (one_by_one, (task,)), (drawing, ())),
                *((wrong_input, (task, folder)), (phone, (task,)), (keyboard, ())),
            ):
                part(page, *given)
                print(f"{part.__name__}: done", flush=True)
            for refused in (page.foreign(), page.complaints()):
                assert not refused, refused[:5]
    print(f"The page is right; look at its pictures in {options.pictures}.")


if __name__ == "__main__":
    main()
