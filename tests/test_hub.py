"""Downloads from a hub: only what is needed, what is here is used, and each refusal in words."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints import download, hub_cache
from embedsvc.checkpoints import hub as hub_module
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.cli import main
from embedsvc.commands.progress import Bar
from embedsvc.errors import CheckpointError
from tests.support.hub import (
    CARD,
    COMMIT,
    WEIGHTS,
    Hub,
    Refusal,
    nothing_loads,
    serve_repository,
    use,
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_repository(tmp_path, monkeypatch) as hub:
        yield hub


def test_only_the_files_that_are_needed_come(hub: Hub) -> None:
    folder = find_checkpoint(CARD)
    came = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert came == set(hub.files) - {
        "pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
    }
    assert {each.name for each in hub.asked} == came
    assert all((folder / name).read_bytes() == hub.files[name] for name in came)


def test_files_of_torch_come_where_a_folder_has_no_others(hub: Hub) -> None:
    hub.files["2_Dense/pytorch_model.bin"] = b"the weights of a module"
    assert (find_checkpoint(CARD) / "2_Dense" / "pytorch_model.bin").is_file()
    assert "pytorch_model.bin" not in {each.name for each in hub.asked}
    size = len(hub.files[WEIGHTS]) + len(hub.files["2_Dense/pytorch_model.bin"])
    assert hub_module.look_ahead("org/model", None)[1] == size


def test_a_repository_of_torchs_files_alone_comes_with_them(hub: Hub) -> None:
    del hub.files[WEIGHTS]
    hub.files["pytorch_model-00001-of-00002.bin"] = hub.files.pop("pytorch_model.bin")
    hub.files["pytorch_model.bin.index.json"] = b"{}"
    hub.files["training_args.bin"] = hub.files["optimizer.pt"] = b"not needed"
    folder = find_checkpoint(CARD)
    assert {path.name for path in folder.glob("*.bin*")} == {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
    }


def test_torchs_files_of_another_program_are_asked_for_only_without_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def snapshot_download(_repo: str, *, allow_patterns: list[str], **_others: object) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(hub_cache, "snapshot_download", snapshot_download)
    assert hub_cache.kept_by_others("org/model", None) == tmp_path
    assert ["pytorch_model*.bin" in patterns for patterns in asked] == [False, True]
    (tmp_path / WEIGHTS).touch()
    assert hub_cache.kept_by_others("org/model", None) == tmp_path
    assert len(asked) == 3


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


@pytest.mark.parametrize("revision", ["/dev/zero", "../../blobs/x", "refs//x", "a\nb", "x" * 101])
def test_a_revision_is_no_path_to_another_file(hub: Hub, revision: str) -> None:
    assert hub_cache.kept("org/model", revision) is None
    with pytest.raises(
        hub_module.HubError, match="has no such revision: its name is not a plain one"
    ):
        hub_module.pull("org/model", revision)


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


def test_a_token_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find_checkpoint(CARD)
    assert {each.key for each in hub.asked} == {"Bearer hf_secret"}


def test_a_name_that_leads_out_of_the_folder_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    hub.files["../../../../../evil.json"] = b"{}"
    hub.files["a/../../evil.json"] = b"{}"
    find_checkpoint(CARD)
    assert not list(tmp_path.rglob("evil.json"))


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
