"""Opens report pages in headless Chromium and tells what happened there."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DRAWN = "element => element.dataset.drawn"
INTO_VIEW = "element => element.scrollIntoView({ block: 'center' })"
WIDE, PHONE = 1280, 360
DRAWING_MS = 20_000
POLLING_MS = 50

WITHOUT_GPU = ("--disable-gpu", "--disable-software-rasterizer")
"""A page of text, SVG and 2D canvas needs no pretended GPU, which takes processors of its own."""


def chromium() -> str:
    """The system's Chromium. Without one the test is skipped, but fails where CI promises one."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    sentence = f"there is no Chromium here: none of {', '.join(NAMES)} is on the path"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextmanager
def chromium_running() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(WITHOUT_GPU))
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page and what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def plots(self) -> list[Any]:
        """The places of the figures."""
        return list(self.page.query_selector_all("[data-spec]"))

    def unfold(self) -> None:
        """Open everything that is folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    def draw_all(self) -> None:
        """Bring each figure into view, as a reader does, and wait for it."""
        self.page.evaluate("document.querySelectorAll('details.notes').forEach(one => { one.open = true; })")
        for plot in self.plots():
            self.draw(plot)

    def draw(self, plot: Any) -> None:
        """Bring one figure into view and wait for it."""
        plot.evaluate(INTO_VIEW)
        self.until(DRAWN, plot)

    def until(self, condition: str, arg: Any = None, timeout_ms: float = DRAWING_MS) -> None:
        """Wait until JavaScript says so. Asked by the clock: a browser on a crowded machine may draw no frame for long."""
        self.page.wait_for_function(condition, arg=arg, timeout=timeout_ms, polling=POLLING_MS)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(width))


@contextmanager
def opened(browser: Any, path: Path, width: int = WIDE, **options: Any) -> Iterator[Opened]:
    """A file in a fresh profile, as if from a folder. Requests for anything but the file are noted and refused."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    try:
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        found.page.on("dialog", lambda dialog: (found.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        context.on("request", lambda request: found.asked.append(request.url))
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        found.page.goto(path.resolve().as_uri())
        yield found
    finally:
        context.close()


def colours(png: bytes) -> int:
    """How many different colours a picture has: one of nothing has one."""
    from PIL import Image

    counted = Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)
    return len(counted or [])


def brightness(png: bytes) -> float:
    """Mean of all pixels, 0 black to 255 white."""
    from PIL import Image

    grey = Image.open(io.BytesIO(png)).convert("L").resize((1, 1))
    value = grey.getpixel((0, 0))
    assert isinstance(value, int)
    return float(value)
