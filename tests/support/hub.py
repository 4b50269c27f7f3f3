"""A hub on this machine that speaks like Hugging Face's, and fails as tests ask it to."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints import download
from embedsvc.checkpoints.hub_cache import kept
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import write_bert
from tests.support.http_server import HttpServer, QuietHandler

WEIGHTS = "model.safetensors"
CARD = Card(id="m", repo="org/model")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = 1 << 12
"""Bytes. Larger files are kept with Git LFS, smaller ones in git itself."""


class Asked(NamedTuple):
    """A request for a file."""

    name: str
    range: str | None
    key: str | None
    encoding: str | None = None


class Refusal(NamedTuple):
    """An error in place of a repository."""

    status: int
    code: str | None = None


class Hub(HttpServer):
    """A hub with one repository, `org/model`. To be used in `with`."""

    def __init__(self, folder: Path) -> None:
        self.commit = COMMIT
        self.files = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        self.sent: dict[str, bytes] = {}
        """Contents that are sent in place of those of files."""
        self.asked: list[Asked] = []
        self.refusal: Refusal | None = None
        self.file_refusals: list[int] = []
        """The statuses of the next answers, in place of files."""
        self.cuts: list[int] = []
        """After how many bytes the next answers with large files are cut off."""
        self.stated: dict[str, int | None] = {}
        """Sizes that the list of files has, in place of the true ones."""
        self.info: bytes | None = None
        """The list of files, in place of the true one."""
        self.headers: dict[str, str] = {}
        """More headers for answers with files."""
        self.redirects: dict[str, str] = {}
        """Other URLs that files are redirected to."""
        self.between: Callable[[int], None] = lambda sent: None
        """Called before each chunk of a large file, with how many bytes of it were sent."""
        super().__init__(self._handler())

    def asked_for(self, name: str) -> list[Asked]:
        return [each for each in self.asked if each.name == name]

    def _about(self) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's
            size = self.stated.get(name, len(content))
            about: dict[str, object] = {"rfilename": name, "size": size, "blobId": blob}
            if len(content) > SMALL:
                digest = hashlib.sha256(content).hexdigest()
                about["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(about)
        return {"id": "org/model", "sha": self.commit, "siblings": siblings, "private": False}

    def _handler(self) -> type[QuietHandler]:
        hub = self

        class Handler(QuietHandler):
            def get(self) -> None:
                path = unquote(urlsplit(self.path).path)
                if hub.refusal is not None:
                    self._refuse(*hub.refusal)
                elif path.startswith("/api/models/org/model/revision/"):
                    revision = path.rpartition("/")[2]
                    if revision in ("main", hub.commit):
                        told = json.dumps(hub._about()).encode()
                        self.answer(200, told if hub.info is None else hub.info)
                    else:
                        self._refuse(404, "RevisionNotFound")
                elif path.startswith(f"/org/model/resolve/{hub.commit}/"):
                    self._file(path.split("/", 5)[5])
                else:
                    self._refuse(404, "RepoNotFound")

            def _file(self, name: str) -> None:
                wanted = self.headers["Range"]
                hub.asked.append(
                    Asked(
                        name, wanted, *map(self.headers.get, ("Authorization", "Accept-Encoding"))
                    )
                )
                if hub.file_refusals:
                    self._refuse(hub.file_refusals.pop(0))
                    return
                if name in hub.redirects:
                    self.answer(302, b"", Location=hub.redirects[name])
                    return
                content = hub.sent.get(name, hub.files[name])
                first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(content) - first))
                for header, value in hub.headers.items():
                    self.send_header(header, value)
                self.end_headers()
                large = len(content) > SMALL
                end = len(content)
                if large and hub.cuts:
                    end = min(end, first + hub.cuts.pop(0))
                    self.close_connection = True
                for place in range(first, end, SMALL):
                    if large:
                        hub.between(place)
                    try:
                        self.wfile.write(content[place : min(place + SMALL, end)])
                    except ConnectionError:  # the client is gone
                        self.close_connection = True
                        return

            def _refuse(self, status: int, code: str | None = None) -> None:
                self.answer(status, b"{}", **({"X-Error-Code": code} if code else {}))

        return Handler


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this URL the hub, as HF_ENDPOINT does when a process starts."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def serve_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub in use, with a model and files beside it that are not needed. The cache is empty."""
    folder = write_bert(tmp_path / "repo")
    for name in ("README.md", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with Hub(folder) as server:
        use(server.url, monkeypatch)
        yield server


def nothing_loads(said: str) -> None:
    """Check that the model cannot be found, with this message, and that nothing is left to load."""
    with pytest.raises(CheckpointError, match=said):
        find_checkpoint(CARD)
    assert kept("org/model", None) is None
