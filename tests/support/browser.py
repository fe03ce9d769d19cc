"""A real Chromium for tests of pages; where there is none, the test is skipped and says what to install."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser of Playwright, the installed Chromium under it."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no Chromium to open the page with; Debian, Ubuntu: apt install chromium")
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed; the extra `browser` has it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, **settings: Any) -> Iterator[Any]:
    """A page of a file, without a network; anything that it logs, throws or asks for elsewhere is an error."""
    context = browser.new_context(**settings)
    context.set_offline(True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: request.url == file.as_uri() or wrong.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert not wrong
