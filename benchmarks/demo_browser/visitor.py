"""Chromium without a window, driven by Selenium: a visitor of the demo.

It needs Selenium (``pip install selenium``), Chromium and its driver (Debian:
``apt-get install chromium chromium-driver``).
"""

import base64
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 120  # seconds, for a busy machine
DESKTOP, PHONE = (1280, 900), (375, 800)
ARGUMENTS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
    # A camera that needs no permission, and shows a moving pattern.
    *("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"),
)

Found = TypeVar("Found")


class Visitor:
    """A page in a browser.

    Args:
        driver: of the browser.
        url: of the demo.
        pictures: folder for pictures of the page.
    """

    def __init__(self, driver: Any, url: str, pictures: Path) -> None:
        self.driver, self.url, self.pictures = driver, url, pictures
        self.open()

    def open(self) -> None:
        """Get the page as a new visitor."""
        self.driver.get(self.url)
        self.element("#start")
        time.sleep(2)  # until Gradio has bound the events

    def elements(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def element(self, selector: str) -> Any:
        """The first element, once there is one."""
        return self.wait(lambda: self.elements(selector), f"no {selector}")[0]

    def text(self, selector: str) -> str:
        return " ".join(self.element(selector).text.split())

    def texts(self, selector: str) -> list[str]:
        return [" ".join(each.text.split()) for each in self.elements(selector)]

    def wait(self, check: Callable[[], Found], what: str) -> Found:
        """The first true value of a check."""
        end, value = time.monotonic() + PATIENCE, None
        while time.monotonic() < end:
            try:
                if value := check():
                    return value
            except WebDriverException:  # an element was replaced meanwhile
                pass
            time.sleep(0.1)
        raise AssertionError(f"{what} after {PATIENCE} seconds; last: {value!r}")

    def wait_for_text(self, selector: str, words: str) -> str:
        """The text of an element, once it holds the words."""
        try:
            self.wait(lambda: words in self.text(selector), f"{selector} has no {words!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.text(selector)!r}") from error
        return self.text(selector)

    def click(self, selector: str) -> None:
        element = self.element(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, radio: str, label: str, shown: str) -> None:
        """Choose a source, and wait until its component is shown."""
        found = self.wait(
            lambda: [e for e in self.elements(f"#{radio} label") if e.text.strip() == label],
            f"#{radio} has no {label}",
        )[0]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()
        self.wait(lambda: self.element(shown).is_displayed(), f"no {shown}")
        time.sleep(0.3)  # until what is below is at its new place

    def give(self, selector: str, *paths: Path) -> None:
        """Choose files, and wait until they are uploaded."""
        for clear in self.elements(f'{selector} button[aria-label="Clear"]'):
            clear.click()
        field = self.element(f"{selector} input[type=file]")
        field.send_keys("\n".join(map(str, paths)))
        self.element(f"{selector} tr.file")

    def fill(self, selector: str, text: str) -> None:
        field = self.element(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def press(self, *keys: str) -> None:
        """Press keys, whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> list[str]:
        """The ids of the element that has the focus, and of the elements around it."""
        script = """const ids = [];
            for (let e = document.activeElement; e; e = e.parentElement) if (e.id) ids.push(e.id);
            return ids;"""
        ids: list[str] = self.driver.execute_script(script)
        return ids

    def picture(self, name: str) -> None:
        """Keep a picture of the whole page."""
        time.sleep(0.7)  # until it is at rest
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        whole = {"captureBeyondViewport": True, "clip": clip}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)
        (self.pictures / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def resize(self, size: tuple[int, int]) -> None:
        """Make it a phone, or a window again."""
        if size == DESKTOP:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            return
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def cut(self) -> list[str]:
        """Texts of the demo's own elements that do not fit in them, and whatever is too wide."""
        script = """const wide = [...document.querySelectorAll(
                '.html-container *, label > span')]
            .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
            .map((e) => e.textContent.slice(0, 60));
            const page = document.documentElement;
            if (page.scrollWidth > page.clientWidth) wide.push('the page');
            return wide;"""
        texts: list[str] = self.driver.execute_script(script)
        return texts

    def foreign(self) -> list[str]:
        """Addresses of requests to other machines."""
        own = (self.url, "data:", "blob:", "chrome", self.url.replace("http", "ws"))
        events = (json.loads(entry["message"]) for entry in self.driver.get_log("performance"))
        sent = [e["message"] for e in events if "requestWillBeSent" in e["message"]["method"]]
        urls = [e["params"]["request"]["url"] for e in sent if "request" in e["params"]]
        return [url for url in urls if not url.startswith(own)]

    def complaints(self) -> list[str]:
        """What the browser refused to do."""
        lines = [entry["message"] for entry in self.driver.get_log("browser")]
        return [line for line in lines if "Content Security Policy" in line or "Uncaught" in line]


@contextmanager
def chromium(downloads: Path) -> Iterator[Any]:
    """A driver of a new browser, without a profile.

    Args:
        downloads: folder for what it downloads.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit("there is no Chromium: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in (*ARGUMENTS, f"user-data-dir={profile}", "window-size=1280,900"):
            options.add_argument(f"--{argument}")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()
