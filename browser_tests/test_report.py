"""E12: the report in a real browser. Needs chromium and chromedriver: `make browser-test`."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from calo_train.showers.paths import embedded_file

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1200,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the embedded showers against themselves, for two samples."""
    folder = tmp_path_factory.mktemp("a browser test")
    reference = embedded_file("ild_sample.h5")
    copy = folder / "second.h5"
    shutil.copy(reference, copy)
    command = [
        sys.executable, "-m", "calo_train.cli.evaluate", str(reference), str(copy),
        "--reference", str(reference), "-n", "200", "--dataset", "ild_sample",
        "--classifier-runs", "0", "--out", str(folder / "report"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=400)  # noqa: S603
    return folder / "report" / "report.html"


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory):
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def test_the_page_opens_without_a_console_message(browser):
    assert "against ild_sample" in browser.title
    assert browser.get_log("browser") == []


def test_every_image_loads(browser):
    widths = browser.execute_script(
        "return Array.from(document.images, image => image.complete ? image.naturalWidth : 0)"
    )
    assert len(widths) > 15
    assert min(widths) > 300


def test_nothing_is_fetched_but_the_page(browser):
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []


@pytest.mark.parametrize("width", [1200, 700])
def test_the_page_does_not_scroll_sideways(browser, width):
    browser.set_window_size(width, 900)
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )


def pixels(browser, panel: int) -> str:
    """The picture of a panel of the event display, after the next frame."""
    return browser.execute_async_script(
        "const [panel, done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() =>"
        "done(document.querySelector(`[data-role=canvas-${panel}]`).toDataURL())))",
        panel,
    )


def role(browser, name: str):
    return browser.find_element(By.CSS_SELECTOR, f'[data-role="{name}"]')


@pytest.fixture
def display(browser):
    """The display as it is when the page opens, in view."""
    browser.set_window_size(1200, 900)
    browser.refresh()
    canvas = role(browser, "canvas-0")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    return canvas


def test_dragging_one_shower_turns_both(browser, display):
    before = [pixels(browser, panel) for panel in (0, 1)]
    ActionChains(browser).drag_and_drop_by_offset(display, 90, 40).perform()
    after = [pixels(browser, panel) for panel in (0, 1)]
    assert before[0] != after[0]
    assert before[1] != after[1]
    role(browser, "reset").click()
    assert [pixels(browser, panel) for panel in (0, 1)] == before


def test_copies_of_a_shower_look_alike_from_every_side(browser, display):
    """The sample is the reference: showers of a pair, their cut and the camera are the same."""
    for _ in range(2):
        assert pixels(browser, 0) == pixels(browser, 1)
        ActionChains(browser).drag_and_drop_by_offset(display, -50, 70).perform()
        role(browser, "next").click()


def test_the_keyboard_turns_and_zooms(browser, display):
    seen = {pixels(browser, 0)}
    display.click()
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, "+", "n"):
        display.send_keys(key)
        seen.add(pixels(browser, 0))
    assert len(seen) == 5


@pytest.mark.usefixtures("display")
def test_the_cut_hides_the_faint_hits(browser):
    words = role(browser, "words-0").text
    shown, hits = (int(number) for number in re.findall(r"\d+", words)[:2])
    assert shown == hits
    role(browser, "cut").send_keys(Keys.END)
    pixels(browser, 0)
    assert int(re.findall(r"\d+", role(browser, "words-0").text)[0]) <= 1


@pytest.mark.usefixtures("display")
def test_samples_are_chosen_by_name(browser):
    Select(role(browser, "sample")).select_by_visible_text("second")
    pixels(browser, 1)
    assert role(browser, "title-1").text.startswith("second, ")


def test_the_page_prints_with_every_figure(browser):
    """The printed display is the static figure."""
    browser.refresh()
    style = (
        "return getComputedStyle(document.querySelector('#figure-event_display > img')).display"
    )
    assert browser.execute_script(style) == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(style) != "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", printed)) > 5


def test_no_script_of_the_page_has_complained(browser):
    assert browser.get_log("browser") == []
