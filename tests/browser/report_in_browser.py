"""The report as a browser shows it; `make browser-test` runs this, `make test` does not.

Needs chromium and chromedriver, which not every machine has.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import commands
import detectors
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.chrome.webdriver import WebDriver

PHONE, DESKTOP = (390, 844), (1280, 900)  # CSS pixels


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluate showers of one law against others and give the report's page."""
    folder = tmp_path_factory.mktemp("a report")
    for name, seed in (("sample.h5", 0), ("reference.h5", 1)):
        detectors.write_showers(folder / name, detectors.cartesian(), 300, seed=seed)
    files = ["sample.h5", "--reference", "reference.h5", "--out", "report"]
    done = commands.run("calo-eval", *files, "--threshold", "0.1MeV", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "report" / "report.html"


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[WebDriver]:
    """Open the report in a headless Chromium that has no network."""
    options = webdriver.ChromeOptions()
    options.binary_location = _installed("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--proxy-server=127.0.0.1:9"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, Service(_installed("chromedriver"))) as driver:
        driver.get(report.as_uri())
        yield driver


def _installed(program: str) -> str:
    path = shutil.which(program)
    assert path is not None, (
        f"{program} is not installed: apt-get install chromium chromium-driver"
    )
    return path


def test_every_figure_is_drawn(browser: WebDriver) -> None:
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) > 10
    assert min(widths) > 0


def test_page_asks_for_nothing_beside_itself(browser: WebDriver) -> None:
    """A report is mailed and opened offline: no script, style, font or image from elsewhere."""
    script = "return performance.getEntriesByType('resource').map(e => e.name)"
    asked = [name for name in browser.execute_script(script) if not name.startswith("data:")]
    assert asked == []
    assert browser.get_log("browser") == []


def test_links_inside_the_page_lead_somewhere(browser: WebDriver) -> None:
    script = (
        "return [...document.querySelectorAll('a[href^=\"#\"]')]"
        ".filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash)"
    )
    assert browser.execute_script(script) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_page_does_not_scroll_sideways(browser: WebDriver, size: tuple[int, int]) -> None:
    """Wide tables scroll inside their own box."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
