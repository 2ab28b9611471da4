"""E12: the report in a real browser. Needs chromium and chromedriver: `make browser-test`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

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
    """A report of the embedded showers against themselves."""
    folder = tmp_path_factory.mktemp("a browser test")
    sample = str(embedded_file("ild_sample.h5"))
    command = [
        sys.executable, "-m", "calo_train.cli.evaluate", sample, "--reference", sample,
        "-n", "200", "--dataset", "ild_sample", "--classifier-runs", "0",
        "--out", str(folder / "report"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=240)  # noqa: S603
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
    assert "ild_sample against" in browser.title
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
