"""A server for a browser, pages that are opened, and what is done on them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.support.server import INSTALLED, address

MODEL = "all-MiniLM-L6-v2"
RANKER = "ranker"
TEXTS = ["a cat sat on the mat", "interest rates rose", "a kitten lay on the rug", "pasta boils"]


@contextmanager
def serving(
    cards: Path, *options: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """The URL and the process of a server. At the end it must stop in time, with code 0."""
    process = subprocess.Popen(
        [*INSTALLED, "--models", cards, "--port", "0", *options],
        env={"PATH": "/usr/bin:/bin", "HOME": str(cards.parent), "HF_HUB_OFFLINE": "1"}
        | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield address(process), process
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


class Opened:
    """Opens pages, and records what they report in the console."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        self.refusals: list[str] = []
        """Reports of answers that are errors. Some tests expect them."""

    def __call__(self, url: str, *, width: int = 1280, dark: bool = False) -> Page:
        context = self._browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(20_000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(url)
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.text.startswith("Failed to load resource"):
            self.refusals.append(message.text)
        elif message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def row(page: Page, model: str = MODEL):
    """A model's row in the list."""
    return page.locator("#model-list li").filter(
        has=page.get_by_role("heading", name=model, exact=True)
    )


def load(page: Page, model: str = MODEL) -> None:
    """Load a model by its button, if it is not there."""
    button = row(page, model).get_by_role("button")
    if "Load" in button.inner_text():
        button.click()
    row(page, model).get_by_text("Ready").wait_for()


def embed(page: Page, texts: list[str] | None = None) -> None:
    """Embed these texts, or those that the page has."""
    if texts is not None:
        page.get_by_label("Texts, one a line").fill("\n".join(texts))
    page.get_by_label("Model", exact=True).select_option(MODEL)
    page.get_by_role("button", name="Embed", exact=True).click()
    page.locator("#said", has_text=" ms").wait_for()


def vectors(url: str, texts: list[str], **fields: object) -> np.ndarray:
    """The vectors that the API gives, as JSON floats."""
    body = {"model": MODEL, "input": texts, "truncate": "end"} | fields
    answer = httpx2.post(f"{url}/v1/embeddings", json=body, timeout=30)
    return np.array([each["embedding"] for each in answer.raise_for_status().json()["data"]])


def look(page: Page, view: str) -> None:
    page.get_by_role("tab", name=view).click()
