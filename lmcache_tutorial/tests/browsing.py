"""What tests in a browser share: how it is started, and what a page has asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

PROGRAMS = ("chromium", "chromedriver")
QUIET = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1100,1600",
]


def missing_programs() -> str:
    """Name what is not installed; empty where all is."""
    return " and ".join(name for name in PROGRAMS if not shutil.which(name))


def start_browser(profile: Path) -> Chrome:
    """Start a Chromium with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in [*QUIET, f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(30)
    return driver


def requests_of(browser: Chrome, address: str) -> set[str]:
    """Return what the page at an address has asked for, itself included, but for what lies within it."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    ours = {one["request"]["url"] for one in sent if one["documentURL"] == address}
    return {url for url in ours if not url.startswith("data:")}
