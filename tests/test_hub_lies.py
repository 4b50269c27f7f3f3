"""A hub that lies or redirects, and a disk that is shared: nothing is written outside or beyond."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints import download, hub_cache, hub_client
from embedsvc.checkpoints import hub as hub_module
from embedsvc.checkpoints.hub_client import BrokenAnswer, opened
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.errors import CheckpointError, Stopped
from embedsvc.serving.ad_hoc import find_or_make_card
from tests.support.checkpoints import write_bert
from tests.support.hub import CARD, COMMIT, WEIGHTS, Hub, nothing_loads, use
from tests.support.tiny_registry import open_registry, write_cards


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with Hub(write_bert(tmp_path / "repo")) as server:
        use(server.url, monkeypatch)
        yield server


@pytest.mark.parametrize(
    "name",
    [
        "{outside}/victim.json",
        "../../../../../victim.json",
        "a/../../../../../../victim.json",
        "./victim.json",
        "a//victim.json",
        "..\\..\\victim.json",
        "C:victim.json",
        "C:\\victim.json",
        "nul\0victim.json",
        "line\nvictim.json",
        "a/" * 9 + "victim.json",
        "x" * 300 + ".json",
        "..json",
        " victim.json",
    ],
)
def test_a_name_that_is_not_plain_is_not_taken(hub: Hub, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim.json"
    victim.write_text("mine")
    name = name.replace("{outside}", str(tmp_path))
    hub.files[name] = b'{"theirs": 1}'
    folder = find_checkpoint(CARD)
    assert (folder / "config.json").is_file()
    assert victim.read_text() == "mine"
    assert not victim.is_symlink()
    assert name not in {each.name for each in hub.asked}
    assert all("theirs" not in f.read_text("latin-1") for f in tmp_path.rglob("*") if f.is_file())


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_is_not_read_beyond_the_size_that_is_told(hub: Hub, name: str) -> None:
    hub.stated[name] = 100
    nothing_loads(rf"has a file that does not end where it should, {name}: 100 bytes were to come")
    blobs = hub_cache.repo_folder("org/model") / "blobs"
    assert not list(blobs.glob("*.part"))
    hub.stated.clear()
    assert (find_checkpoint(CARD) / name).read_bytes() == hub.files[name]


def test_a_file_whose_size_is_not_told_is_bounded_all_the_same(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stated[WEIGHTS] = None
    monkeypatch.setattr(download, "HUB_UNSTATED_BYTES", len(hub.files[WEIGHTS]) - 1)
    nothing_loads("does not end where it should, model.safetensors")
    monkeypatch.setattr(download, "HUB_UNSTATED_BYTES", len(hub.files[WEIGHTS]))
    assert (find_checkpoint(CARD) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_nothing_is_unpacked(hub: Hub) -> None:
    hub.headers["Content-Encoding"] = "gzip"
    nothing_loads("is sent compressed by 127.0.0.1, which nobody asked for")
    assert {each.encoding for each in hub.asked} == {"identity"}


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"[]",
        b"{",
        b'{"sha": 1}',
        b'{"siblings": [{"rfilename": "config.json", "size": -1}]}',
        b'{"siblings": [{"rfilename": "config.json", "size": 1e300}]}',
        b'{"siblings": [{"rfilename": ["config.json"]}]}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_what_is_told_in_another_way_is_refused(hub: Hub, told: bytes) -> None:
    hub.info = told
    nothing_loads("org/model is told of by http.* in a way that is not known")


def test_what_is_told_is_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "HUB_INFO_BYTES", 100)
    nothing_loads("is told of by http.* at too great a length")


def siblings(*about: tuple[str, int]) -> bytes:
    files = [{"rfilename": name, "size": size, "blobId": "0" * 40} for name, size in about]
    return json.dumps({"sha": COMMIT, "siblings": files}).encode()


def test_files_and_their_bytes_are_bounded(hub: Hub) -> None:
    hub.info = siblings(*((f"{number}.json", 1) for number in range(1001)))
    nothing_loads("is too large: at most 1000 files and 512 GiB are downloaded")
    hub.info = siblings(("a.json", 300 << 30), ("b.json", 300 << 30))
    nothing_loads("is too large")
    hub.info = siblings(("a.json", 1), ("a.json", 2))
    nothing_loads("has a file twice, says http")
    assert hub.asked == []


# --- redirects ---------------------------------------------------------------------------------


def test_within_the_hub_a_redirect_is_followed(hub: Hub) -> None:
    hub.files["elsewhere/config.json"] = hub.files["config.json"]
    hub.redirects["config.json"] = f"/org/model/resolve/{COMMIT}/elsewhere/config.json"
    assert (find_checkpoint(CARD) / "config.json").is_file()


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1:9/config.json", "is redirected by 127.0.0.1 to another host, and not b"),
        ("file://h/etc/passwd", "to another host, and not by https"),
        ("https://h:port/", "is redirected by 127.0.0.1 to no address"),
        ("https://h:99999/", "is redirected by 127.0.0.1 to no address"),
        ("https://", "is redirected by 127.0.0.1 to no address"),
        ("config.json", "is redirected more than 5 times by 127.0.0.1"),
    ],
)
def test_elsewhere_it_is_not(hub: Hub, location: str, said: str) -> None:
    hub.redirects["config.json"] = location
    nothing_loads(said)
    assert len(hub.asked_for("config.json")) <= 6


def test_a_token_goes_to_the_hub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []
    ways = {
        "https://hub.example/a": "https://hub.example/b",
        "https://hub.example/b": "https://cdn.example/c",
        "https://cdn.example/c": "https://hub.example/d",
        "https://hub.example/d": "http://hub.example/e",
    }

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append((request.url.path, request.headers.get("authorization")))
        return httpx2.Response(302, headers={"location": ways[str(request.url)]})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(hub_client, "get_session", lambda: client)
    with (
        pytest.raises(BrokenAnswer, match="to another host, and not by https"),
        opened("https://hub.example/a", {"authorization": "Bearer secret"}),
    ):
        pass
    assert asked == [("/a", "Bearer secret"), ("/b", "Bearer secret"), ("/c", None), ("/d", None)]


# --- several processes, one disk ---------------------------------------------------------------


def test_links_that_are_right_stay_and_others_are_exchanged(hub: Hub) -> None:
    folder = find_checkpoint(CARD)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/nowhere")
    before = (folder / WEIGHTS).lstat()
    assert hub_module.pull("org/model", None) == folder
    after = (folder / WEIGHTS).lstat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (folder / "config.json").read_bytes() == hub.files["config.json"]


def test_who_reads_while_others_pull_always_finds_every_file(hub: Hub) -> None:
    folder = find_checkpoint(CARD)
    names = [file.name for file in folder.iterdir() if file.is_file()]
    over = threading.Event()

    def read() -> int:
        gaps = 0
        while not over.is_set():
            gaps += any(not (folder / name).is_file() for name in names)
            gaps += hub_cache.kept("org/model", None) is None
        return gaps

    with ThreadPoolExecutor(4) as threads:
        reading = threads.submit(read)
        pulls = [threads.submit(hub_module.pull, "org/model", None) for _ in range(20)]
        assert {pull.result() for pull in pulls} == {folder}
        over.set()
        assert reading.result() == 0


def test_what_another_process_brought_while_one_waited_is_not_brought_again(hub: Hub) -> None:
    root = hub_cache.repo_folder("org/model")
    root.mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        with WeakFileLock(root / "embedsvc.lock"):
            waiting = [threads.submit(find_checkpoint, CARD) for _ in range(2)]
            assert not any(each.done() for each in waiting)
        (folder,) = {each.result() for each in waiting}
    names = [each.name for each in hub.asked]
    assert sorted(names) == sorted(set(names))
    assert (folder / WEIGHTS).is_file()


def test_waiting_for_another_process_can_be_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "LOCK_SECONDS", 0.01)
    root = hub_cache.repo_folder("org/model")
    root.mkdir(parents=True)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads, WeakFileLock(root / "embedsvc.lock"):
        waiting = threads.submit(find_checkpoint, CARD, None, stop)
        stop.set()
        with pytest.raises(Stopped):
            waiting.result()
    assert hub.asked == []


def test_models_on_disk_do_not_wait_for_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path, "abc", b="[models.far1]\nrepo = 'x/1'\n[models.far2]\nrepo = 'x/2'\n")
    over = threading.Event()

    def find(card: Card, told, stop: threading.Event) -> Path:
        if card.repo is not None:
            over.wait(10)
            raise CheckpointError("junk")
        return find_checkpoint(card)

    monkeypatch.setattr("embedsvc.serving.loader.find_checkpoint", find)

    async def main() -> None:
        async with open_registry(tmp_path, allow_ad_hoc=True) as registry:
            try:
                names = ("far1", "far2", *(f"y/{number}" for number in range(4)))
                junk = [registry.start(await find_or_make_card(registry, name)) for name in names]
                await registry.load("a")
                assert {each.state for each in junk} == {"loading"}
            finally:
                over.set()

    asyncio.run(main())
