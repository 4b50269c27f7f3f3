"""The fixtures of all tests: backends, checkpoints, and an app over a tiny model."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.bulk.rows import InputRow
from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.daemon.spec import State
from embedsvc.diagnosis import surroundings
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.native import library
from tests.support.app import serve
from tests.support.backends import BACKENDS
from tests.support.bulk import rows_of
from tests.support.bulk_inputs import read_rows
from tests.support.checkpoints import write_bert
from tests.support.doctor import Doctor, FakeManager
from tests.support.embed_command import write_folder
from tests.support.fake_server import FakeServer
from tests.support.project import ROOT
from tests.support.watched_server import WatchedServer

if "KERNELS" in os.environ:  # `make test-kernels` builds them with a sanitizer
    library.LIBRARY = Path(os.environ["KERNELS"])

# A shell that runs tests in the background ignores Ctrl-C for them, and for what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=BACKENDS)
def ops(request: pytest.FixtureRequest) -> Ops:
    """Each backend in float32. A test that takes this fixture runs on all of them."""
    return BACKENDS[request.param]()


@pytest.fixture
def random() -> np.random.Generator:
    """Random numbers of the test's own: they are the same whichever tests ran before it."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def minilm() -> Checkpoint:
    """The real all-MiniLM-L6-v2, from the card that the project ships."""
    return open_checkpoint(read_cards(ROOT / "models.toml").by_id["all-MiniLM-L6-v2"])


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_folder: Path) -> Checkpoint:
    return open_checkpoint(Card(id="tiny", path=tiny_folder))


@pytest.fixture
def cards_file(tmp_path: Path, tiny_folder: Path) -> Path:
    """A cards file with one tiny model, `org/tiny`, also called `embed`."""
    file = tmp_path / "models.toml"
    file.write_text(
        f"[models.\"org/tiny\"]\npath = '{tiny_folder}'\naliases = ['embed']\npreload = true\n",
        encoding="utf-8",
    )
    return file


@pytest.fixture
def client(cards_file: Path) -> Iterator[TestClient]:
    """The app over the tiny model, in this process."""
    with serve(models=cards_file) as client:
        yield client


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """An embedding server that is not embedsvc."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An input of 500 rows for `embedsvc embed`."""
    file = tmp_path / "in.jsonl"
    file.write_text(rows_of(500))
    return file


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[InputRow]]:
    """Writes an input of `embedsvc embed`, and reads it as rows: see `read_rows`."""
    monkeypatch.chdir(tmp_path)
    return read_rows


@pytest.fixture
def embed_folder(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder for `embedsvc embed`: see `write_folder`."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path, tiny_folder)
    return tmp_path


@pytest.fixture
def served(embed_folder: Path) -> Iterator[TestClient]:
    """The app over the models in that folder."""
    with serve(models=embed_folder / "models.toml") as client:
        yield client


@pytest.fixture
def watched(cards_file: Path) -> Iterator[WatchedServer]:
    """The app over the tiny model, whose watchdog sees time pass only when a test says so."""
    with serve(models=cards_file) as client:
        yield WatchedServer(client)


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    """Runs `embedsvc doctor` over a tiny model, on a machine without a service of ours."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(surroundings, "environment_file", lambda system: tmp_path / f"env{system}")
    monkeypatch.setattr(surroundings, "manager", lambda *_: FakeManager(State(installed=False)))
    folder = write_bert(tmp_path / "tiny")
    (tmp_path / "models.toml").write_text(f"[models.tiny]\npath = '{folder}'\n")
    return Doctor(tmp_path, capsys)
