"""The dashboard of a real server, in a real Chromium."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser.support import RANKER, Opened, serving
from tests.support.project import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.exit(
            f"none of {', '.join(BROWSERS)} is installed. On Debian: apt-get install chromium", 1
        )
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cards file: the shipped cards, none preloaded, and one that cannot be loaded."""
    file = tmp_path_factory.mktemp("cards") / "models.toml"
    shipped = (ROOT / "models.toml").read_text().replace("preload = true\n", "")
    file.write_text(f'{shipped}\n[models."broken"]\npath = "no-such-folder"\n')
    return file


@pytest.fixture(scope="session")
def server(cards: Path) -> Iterator[str]:
    with serving(cards) as (url, _):
        yield url


@pytest.fixture(scope="session")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has a tiny reranker, too."""
    folder = tmp_path_factory.mktemp("ranking")
    python = ROOT / ".venv/bin/python"
    subprocess.run([python, "-m", "tests.support.rerankers", folder], cwd=ROOT, check=True)
    shipped = (ROOT / "models.toml").read_text()
    ranker = f'[models.{RANKER}]\npath = "ranker"\ntask = "rerank"\n'
    (folder / "models.toml").write_text(ranker + shipped)
    with serving(folder / "models.toml") as (url, _):
        yield url


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opened]:
    """Opens pages, none of which may report anything in its console."""
    opened = Opened(browser)
    yield opened
    opened.close()
    assert opened.complaints == []
