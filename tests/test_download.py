"""A download of files: shown in bytes, checked, and taken up again where it was cut."""

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from starlette.testclient import TestClient

from embedsvc.checkpoints import download, hub_cache
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.errors import Stopped
from tests.support.app import serve
from tests.support.hub import CARD, WEIGHTS, Hub, nothing_loads, serve_repository


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_repository(tmp_path, monkeypatch) as hub:
        yield hub


def weights(hub: Hub) -> bytes:
    return hub.files[WEIGHTS]


def test_progress_goes_from_nothing_to_all(hub: Hub) -> None:
    told: list[tuple[int, int]] = []
    find_checkpoint(CARD, lambda *each: told.append(each))
    total = sum(len(hub.files[each.name]) for each in hub.asked)
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_a_cut_download_goes_on_where_it_was(hub: Hub) -> None:
    hub.cuts = [5000, 6000, 1]
    folder = find_checkpoint(CARD)
    ranges = [each.range for each in hub.asked_for(WEIGHTS)]
    assert ranges == [None, "bytes=5000-", "bytes=11000-", "bytes=11001-"]
    assert (folder / WEIGHTS).read_bytes() == weights(hub)


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub: Hub) -> None:
    hub.file_refusals = [503, 429]
    assert (find_checkpoint(CARD) / WEIGHTS).is_file()


def test_a_link_that_gives_nothing_is_given_up_and_gone_on_from_later(hub: Hub) -> None:
    hub.cuts = [5000] + [0] * download.TRIES
    nothing_loads("repository org/model could not be downloaded: .* cannot be reached")
    hub.asked.clear()
    assert (find_checkpoint(CARD) / WEIGHTS).read_bytes() == weights(hub)
    assert [each.range for each in hub.asked_for(WEIGHTS)] == ["bytes=5000-"]


@pytest.mark.parametrize("cuts", [[], [1] * 50], ids=["byte after byte", "a byte with each try"])
def test_a_hub_that_drips_is_given_up_and_what_came_is_kept(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, cuts: list[int]
) -> None:
    hub.cuts = cuts
    now = iter(range(0, 10**9, 70))
    monkeypatch.setattr(download, "monotonic", lambda: next(now))  # 70 seconds a look
    monkeypatch.setattr(download, "LEAST_RATE", 10**6)
    nothing_loads(
        r"org/model comes too slowly from 127\.0\.0\.1: \d+ bytes of [\w./]+ in 70 seconds, and at "
        "least 1000000 a second have to come; what came is kept"
    )


def test_a_hub_that_ignores_where_to_go_on_from_is_borne(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cuts = [5000]
    headers: list[dict[str, str]] = []

    def forget(**_: object) -> dict[str, str]:
        headers.append(Forgetful())
        return headers[-1]

    monkeypatch.setattr(download, "build_hf_headers", forget)
    assert (find_checkpoint(CARD) / WEIGHTS).read_bytes() == weights(hub)
    assert {each.range for each in hub.asked_for(WEIGHTS)} == {None}


class Forgetful(dict[str, str]):
    """Headers without the range: the whole file is answered."""

    def __setitem__(self, name: str, value: str) -> None:
        assert name == "Range"


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_with_another_checksum_is_deleted_and_said(hub: Hub, name: str) -> None:
    whole = hub.files[name]
    hub.sent[name] = whole[:-1] + bytes([whole[-1] ^ 1])
    nothing_loads(rf"org/model has a file that came broken, {name}: its checksum is \w+, the hub")
    hub.sent.clear()
    assert (find_checkpoint(CARD) / name).read_bytes() == whole


def test_a_disk_without_room_is_said_before_anything_comes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 0, 9000))
    nothing_loads(r"does not fit on the disk: 0\.\d MB are to come, and .* has 0\.0 MB left")
    assert hub.asked == []


def test_a_disk_that_fills_up_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    nothing_loads("could not be downloaded: the disk with .* is full")


def test_a_download_stops_when_told_to(hub: Hub) -> None:
    stop = threading.Event()

    def told(done: int, total: int) -> None:
        if done:
            stop.set()

    with pytest.raises(Stopped):
        find_checkpoint(CARD, told, stop)
    assert hub_cache.kept("org/model", None) is None


def test_over_http_a_slow_download_shows_its_bytes(hub: Hub, tmp_path: Path) -> None:
    going = threading.Event()
    hub.between = lambda sent: going.wait(10) if sent >= 8192 else None
    (tmp_path / "models.toml").write_text("[models.m]\nrepo = 'org/model'\n")
    with serve(models=tmp_path / "models.toml", load_wait_seconds=0) as client:
        made = client.post("/v1/instances", json={"model": "m"}).json()
        path = f"/v1/instances/{made['id']}"
        watch(client, path, 8192)
        refused = client.post("/v1/embeddings", json={"model": "m", "input": "a"})
        assert refused.status_code == 503
        assert "is downloading" in refused.json()["error"]["message"]
        going.set()
        text = client.get(f"{path}/events").text
        assert '"state":"ready"' in text.splitlines()[-2]


def watch(client: TestClient, path: str, least: int) -> None:
    """Ask until so many bytes are here."""
    for _ in range(10_000):
        told = client.get(path).json()
        assert told["state"] in ("loading", "downloading"), told
        if told["progress"]["done"] >= least:
            assert told["progress"]["total"] > told["progress"]["done"]
            return
    pytest.fail("it does not come")


def test_a_download_that_was_killed_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    sent, going = threading.Event(), threading.Event()

    def between(place: int) -> None:
        if place >= 12288:
            sent.set()
            going.wait(20)

    hub.between = between
    cards = tmp_path / "models.toml"
    cards.write_text("[models.m]\nrepo = 'org/model'\n")
    command = [sys.executable, "-m", "embedsvc", "pull", "m", "--models", str(cards)]
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "HF_HUB_OFFLINE": "0",
    }
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    part = hub_cache.repo_folder("org/model") / "blobs"
    try:
        assert sent.wait(20)
        while not sum(file.stat().st_size for file in part.glob("*.part")):
            assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    here = sum(file.stat().st_size for file in part.glob("*.part"))
    assert hub_cache.kept("org/model", None) is None
    hub.between = lambda place: None
    going.set()
    hub.asked.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert [each.range for each in hub.asked_for(WEIGHTS)] == [f"bytes={here}-"]
    assert hub_cache.kept("org/model", None) == Path(done.stdout.strip())
