"""Downloads from a hub: only what is needed, taken up again, checked, and each failure in words."""

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

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints import download, hub_cache
from embedsvc.checkpoints import hub as hub_module
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.cli import main
from embedsvc.commands.progress import Bar
from embedsvc.errors import CheckpointError, Stopped
from tests.support.app import serve
from tests.support.checkpoints import write_bert
from tests.support.hub import CARD, COMMIT, WEIGHTS, Hub, Refusal, nothing_loads, use


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = write_bert(tmp_path / "repo")
    for name in ("README.md", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    with Hub(folder) as server:
        use(server.url, monkeypatch)
        yield server


def weights(hub: Hub) -> bytes:
    return hub.files[WEIGHTS]


def test_only_the_files_that_are_needed_come(hub: Hub) -> None:
    folder = find_checkpoint(CARD)
    came = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert came == set(hub.files) - {
        "README.md",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
    }
    assert {each.name for each in hub.asked} == came
    assert all((folder / name).read_bytes() == hub.files[name] for name in came)


def test_other_programs_find_what_was_downloaded(hub: Hub) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    folder = find_checkpoint(CARD)
    found = try_to_load_from_cache("org/model", WEIGHTS, cache_dir=constants.HF_HUB_CACHE)
    assert found == str(folder / WEIGHTS)
    (repo,) = scan_cache_dir(constants.HF_HUB_CACHE).repos
    (revision,) = repo.revisions
    assert (repo.repo_id, revision.commit_hash, revision.refs) == ("org/model", COMMIT, {"main"})


def test_what_is_here_is_used_without_asking(hub: Hub) -> None:
    folder = find_checkpoint(CARD)
    asked = len(hub.asked)
    hub.refusal = Refusal(500)
    assert find_checkpoint(CARD) == folder
    assert find_checkpoint(Card(id="m", repo="org/model", revision=COMMIT)) == folder
    assert len(hub.asked) == asked


def test_a_pull_brings_what_is_new_and_only_that(hub: Hub) -> None:
    old = find_checkpoint(CARD)
    hub.asked.clear()
    hub.commit = COMMIT[::-1]
    hub.files["config.json"] += b" "
    new = hub_module.pull("org/model", None)
    assert [each.name for each in hub.asked] == ["config.json"]
    assert find_checkpoint(CARD) == new != old
    assert (old / "config.json").read_bytes() != (new / "config.json").read_bytes()


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


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(401, "GatedRepo"), "is gated: accept its terms at http.*org/model, and set HF_TO"),
        (Refusal(403, "GatedRepo"), "is gated: accept its terms at http.*org/model, and set HF_TO"),
        (Refusal(401, "RepoNotFound"), "is not shown by .* to everybody, if it exists: set HF_TOK"),
        (Refusal(401), "is not shown by .* to everybody, if it exists: set HF_TOKEN"),
        (Refusal(403), "may not be read with this HF_TOKEN, says http"),
        (Refusal(404, "RepoNotFound"), "does not exist at http"),
        (Refusal(404), "does not exist at http"),
        (Refusal(500), "could not be downloaded: http.* answered 500"),
    ],
)
def test_each_refusal_has_its_own_words(hub: Hub, refusal: Refusal, said: str) -> None:
    hub.refusal = refusal
    nothing_loads(f"model `m`: no files; repository org/model {said}")


def test_a_revision_that_is_not_there_is_named(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="org/model has no revision `v9`"):
        find_checkpoint(Card(id="m", repo="org/model", revision="v9"))


def test_without_a_hub_it_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    nothing_loads("is not on this disk, and HF_HUB_OFFLINE keeps it from being downloaded")
    assert hub.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    use("http://127.0.0.1:9", monkeypatch)
    nothing_loads("could not be downloaded: http://127.0.0.1:9 cannot be reached")


def test_offline_what_another_program_downloaded_is_used(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = find_checkpoint(CARD)
    shutil.rmtree(hub_cache.repo_folder("org/model") / "complete")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint(CARD) == folder


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


def test_a_token_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find_checkpoint(CARD)
    assert {each.key for each in hub.asked} == {"Bearer hf_secret"}


def test_a_name_that_leads_out_of_the_folder_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    hub.files["../../../../../evil.json"] = b"{}"
    hub.files["a/../../evil.json"] = b"{}"
    find_checkpoint(CARD)
    assert not list(tmp_path.rglob("evil.json"))


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


def test_models_are_pulled_listed_and_removed(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = tmp_path / "models.toml"
    cards.write_text("[models.m]\nrepo = 'org/model'\naliases = ['n']\n")

    def run(*words: str) -> list[list[str]]:
        assert main([*words, "--models", str(cards)]) == 0
        return [line.split("  ") for line in capsys.readouterr().out.splitlines()]

    def listed() -> tuple[str, str]:
        heading, line = (list(map(str.strip, filter(None, row))) for row in run("models"))
        assert heading == ["model", "on disk", "size", "from"]
        assert line[0] == "m"
        return line[1], line[-1]

    assert listed() == ("no", "org/model")
    hub.cuts = [5000] + [0] * download.TRIES
    assert main(["pull", "n", "--models", str(cards)]) == 4
    assert "cannot be reached" in capsys.readouterr().err
    assert listed() == ("in part", "org/model")
    ((folder,),) = run("pull", "n")
    assert listed() == ("yes", folder)
    ((said,),) = run("rm", "n")
    assert said.startswith("org/model: ")
    assert listed() == ("no", "org/model")
    assert not hub_cache.repo_folder("org/model").exists()
    for command in ("rm", "pull"):
        assert main([command, "none", "--models", str(cards)]) == 3


def test_a_bar_grows_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        bar = Bar("org/model")
        for done in (0, 1, 500_000, 1_000_000):
            bar.show(done, 1_000_000)
        bar.end()
        drawn = capsys.readouterr().err.replace("\n", "").split("\r")[1:]
        assert [line.count("#") for line in drawn] == ([0, 15, 30] if terminal else [])
        assert drawn[-1:] == (["org/model [" + "#" * 30 + "] 1.0 of 1.0 MB "] if terminal else [])
