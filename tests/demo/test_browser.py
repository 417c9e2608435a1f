"""The demo in a real browser: Chromium, headless, as a visitor with a mouse, a phone, a keyboard.

It needs gradio, playwright (``pip install gradio playwright``) and a Chromium; pictures of the page
are left in pytest's temporary folder.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnitraining.cli import main
from omnitraining.datasets import digits
from omnitraining.demo import server as demo_server

pytest.importorskip("gradio")
api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
DESKTOP, PHONE = (1280, 900), (375, 800)
REACHED = ["start", "source", "name", "files", "add", "kind", "predict", "save"]
PATIENCE = 120_000  # milliseconds, for a busy machine
LETTERS = ["Ayb", "Ben", "Gim", "Da", "Ech"]
NAMES = {1: 'one "№1" <b>', 4: "four & more", 7: "sieben"}


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    code = "import sys; from omnitraining.cli import main; sys.exit(main(['demo', 'glyphs']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    yield found[0], process
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stdout.close()
    assert not [*temporary.glob("omni-demo-*")]  # what was uploaded is deleted at the end


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


def visit(browser: Any, server: Any, size: tuple[int, int] = DESKTOP, **more: Any) -> Any:
    """The page as a new visitor gets it; it may send no request to another machine."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.foreign = []
    own = (server[0], "data:", "blob:", server[0].replace("http", "ws"))
    page.on("request", lambda r: r.url.startswith(own) or page.foreign.append(r.url))
    page.goto(server[0])
    page.locator("#start").wait_for()
    return page


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Any]:
    made = visit(browser, server)
    yield made
    assert not made.foreign
    made.context.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Path]]:
    """Handwritten digits: six of each of three classes."""
    folder, data = tmp_path_factory.mktemp("my images"), digits.load(size=32)
    made: dict[int, list[Path]] = {}
    for number in NAMES:
        for turn, index in enumerate((data.labels == number).nonzero()[:6, 0]):
            path = folder / f"{number} ({turn}) é.png"
            Image.fromarray(data.images[index, 0].numpy()).resize((60, 64)).save(path)
            made.setdefault(number, []).append(path)
    return made


def give(page: Any, name: str, paths: list[Path]) -> None:
    """Add a class."""
    page.get_by_label("Name of the class").fill(name)
    if paths:
        page.set_input_files("#files input[type=file]", [str(path) for path in paths])
        page.locator("#files").get_by_text(paths[0].stem[:5]).first.wait_for()
    page.locator("#add").click()


def message(page: Any, place: str, words: str) -> str:
    """The message in a place of the page, once it holds the words."""
    shown = page.locator(f"#{place} .omni-message").filter(has_text=words)
    shown.wait_for()
    text: str = shown.inner_text()
    return text


def predict(page: Any, path: Path) -> None:
    page.get_by_label("Upload", exact=True).check()
    page.set_input_files("#file input[type=file]", str(path))
    page.locator("#file").get_by_text(path.stem[:5]).first.wait_for()
    page.locator("#predict").click()


def test_one_click_shows_what_it_is_about(page: Any, tmp_path: Path) -> None:
    assert "No classes yet" in page.locator("#classes").inner_text()
    assert "No prediction yet" in page.locator("#result").inner_text()
    page.screenshot(path=tmp_path / "empty.png", full_page=True)
    page.locator("#start").click()
    labels = page.locator(".omni-label")
    labels.first.wait_for()
    assert [t.removeprefix("perhaps ").split()[0] for t in labels.all_inner_texts()] == LETTERS
    assert page.locator(".omni-classes li").count() == 5
    assert "Accuracy on these pictures" in page.locator("#fit").inner_text()
    assert page.locator(".omni-flows img[alt^='attention map']").count() == 15
    page.screenshot(path=tmp_path / "example.png", full_page=True)
    seen = page.locator(".omni-answers img").first.get_attribute("src")
    page.locator("#another").click()
    page.wait_for_function(
        "seen => document.querySelector('.omni-answers img').src != seen", arg=seen
    )
    assert labels.count() == 5 and "Ayb" in labels.first.inner_text()


def test_add_classes_predict_label_and_download(
    page: Any, images: dict[int, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 4):
        give(page, NAMES[number], images[number][:4])
        message(page, "class-message", f"“{NAMES[number]}” now has 4 pictures")
    for number in (1, 4):
        predict(page, images[number][5])
        page.locator(".omni-verdict").filter(has_text=NAMES[number]).wait_for()
        page.locator("#file [aria-label*=emove], #file [aria-label*=lear]").first.click()
    predict(page, images[7][0])
    page.get_by_text("Or add these pictures to a class").click()
    page.get_by_label("Name of the new class").fill(NAMES[7])
    page.locator("#label").click()
    message(page, "query-message", f"The picture was added to “{NAMES[7]}”")
    assert page.locator(".omni-classes li").count() == 3
    page.locator("#predict").click()
    page.locator(".omni-verdict").filter(has_text=NAMES[7]).wait_for()
    page.screenshot(path=tmp_path / "own.png", full_page=True)

    for button, words in (("save", "omni predict classes.learner"), ("onnx", "reads ONNX")):
        with page.expect_download() as waiting:
            page.locator(f"#{button}").click()
        message(page, "save-message", words)
        waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
    page.screenshot(path=tmp_path / "saved.png", full_page=True)
    assert {"classes.learner", "classes.onnx"} <= {path.name for path in tmp_path.iterdir()}
    query = str(images[4][5])
    assert main(["predict", str(tmp_path / "classes.learner"), query, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split(",")[1] == NAMES[4]


def test_wrong_input_is_one_clear_sentence(
    page: Any, images: dict[int, list[Path]], tmp_path: Path
) -> None:
    notes, large, wide = (tmp_path / name for name in ("notes.png", "large.png", "wide.png"))
    notes.write_text("no image")
    large.write_bytes(images[1][0].read_bytes() + bytes(22_000_000))
    Image.new("1", (9000, 6000)).save(wide)
    page.locator("#predict").click()
    message(page, "query-message", "Draw something first.")
    page.locator("#add").click()
    message(page, "class-message", "Give the class a name first.")
    give(page, "empty", [])
    message(page, "class-message", "Choose one or more pictures of “empty” first.")
    give(page, "text", [notes])
    message(
        page, "class-message", "notes.png is not an image, or of a kind that Pillow cannot read."
    )
    page.screenshot(path=tmp_path / "wrong.png", full_page=True)
    assert "No classes yet" in page.locator("#classes").inner_text()
    page.reload()
    page.locator("#start").wait_for()
    give(page, "wide", [wide])
    message(page, "class-message", "wide.png has 54 million pixels: 50 million at most.")
    page.reload()
    page.locator("#start").wait_for()
    other = tmp_path / "notes.txt"
    other.write_text("no image")
    page.set_input_files("#files input[type=file]", str(other))
    page.get_by_text(re.compile("Only image allowed")).first.wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "refused.png", full_page=True)
    words = page.locator("#files .error").evaluate("e => getComputedStyle(e, '::after').content")
    assert words.strip('"').startswith(demo_server.REFUSED["files"])
    page.reload()
    page.locator("#start").wait_for()
    give(page, "large", [large])
    message(page, "class-message", "large.png has more than 20 megabytes: give a smaller file.")
    page.reload()
    page.locator("#start").wait_for()
    give(page, "one", images[1][:2])
    message(page, "class-message", "Add another class.")
    predict(page, images[4][0])
    message(
        page, "query-message", "Add one more class first: there must be two or more to choose from."
    )
    assert "Traceback" not in page.content()


def test_visitors_do_not_see_each_other(browser: Any, server: Any, page: Any) -> None:
    page.locator("#start").click()
    page.locator(".omni-label").first.wait_for()
    other = visit(browser, server)
    other.locator("#predict").click()
    message(other, "query-message", "Draw something first.")
    assert "No classes yet" in other.locator("#classes").inner_text()
    other.context.close()


def test_a_drawing_on_a_phone(browser: Any, server: Any, tmp_path: Path) -> None:
    page = visit(browser, server, PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.screenshot(path=tmp_path / "empty.png", full_page=True)
    page.locator("#start").click()
    page.locator(".omni-label").first.wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "view.png")
    page.screenshot(path=tmp_path / "example.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    page.get_by_label("Draw", exact=True).check()
    canvas = page.locator("#drawing canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1000)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y - 40)
    page.mouse.down()
    for step in range(10):
        page.mouse.move(x - 40, y - 40 + 8 * step)
    for step in range(10):
        page.mouse.move(x - 40 + 8 * step, y + 40)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "drawn.png")
    seen = page.locator(".omni-answers img").first.get_attribute("src")
    page.locator("#predict").click()
    page.wait_for_function(
        "seen => document.querySelector('.omni-answers img').src != seen", arg=seen
    )
    page.wait_for_timeout(500)
    page.screenshot(path=tmp_path / "predicted.png", full_page=True)
    assert not page.locator("#query-message .omni-wrong").count()
    assert not page.foreign
    page.context.close()


def test_the_keyboard_reaches_everything(page: Any) -> None:
    seen: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen += page.evaluate(
            "(() => { let e = document.activeElement; const ids = [];"
            "for (; e; e = e.parentElement) if (e.id) ids.push(e.id); return ids })()"
        )
    reached = [name for name in REACHED if name in seen]
    assert reached == REACHED
    page.locator("#start").focus()
    page.keyboard.press("Enter")
    page.locator(".omni-label").first.wait_for()
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    page.locator(".omni-flows li").first.wait_for()
