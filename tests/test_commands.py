"""Commands on a running server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedsvc.cli import main
from embedsvc.commands import address
from embedsvc.commands.address import key_of
from embedsvc.errors import SetupError
from tests.support.classifiers import CLASSIFIERS
from tests.support.fake_server import FakeServer
from tests.support.server import serving
from tests.support.tiny_registry import write_cards

KEY = "sk-right-key-123456"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    write_cards(folder, a="aliases = ['first']")
    (folder / "keys").write_text(KEY)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    options = ("--backend", "numpy", "--api-keys-file", str(folder / "keys"))
    with serving(*options, cards=folder / "models.toml") as (url, _):
        yield url


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMBEDSVC_API_KEY", KEY)

    def run(*words: str, code: int = 0) -> list[str]:
        assert main([*words, "--url", url]) == code
        told = capsys.readouterr()
        return (told.err if code and not told.out else told.out).splitlines()

    return run


def test_a_model_is_loaded_listed_and_unloaded(run) -> None:
    assert run("load", "first", "--keep-alive", "60") == ["a: ready, 25.3 kB"]
    heading, line = run("ps")
    assert heading.split() == ["model", "state", "memory", "requests", "kept", "id"]
    assert line.split()[:-1] == ["a", "ready", "25.3", "kB", "0", "60", "s", "unused"]
    run("load", "b", "--pin")
    assert any(line.startswith("b ") and "pinned" in line for line in run("ps"))
    ready, loaded, memory = run("status")
    assert ready.endswith(": ready")
    assert loaded == "loaded: a, b; 4 names to ask for"
    assert memory.startswith("memory: 50.6 kB of ")
    for name in ("first", "b"):
        assert "unloaded once" in run("unload", name)[0]
    (said,) = run("unload", "first", code=1)
    assert said == "embedsvc: `first` is not loaded"


def test_a_model_that_does_not_load_says_why(run, folder: Path) -> None:
    weights = folder / "tiny" / "model.safetensors"
    kept = weights.rename(folder / "kept")
    try:
        (said,) = run("load", "c", code=1)
        assert "model.safetensors is missing" in said
    finally:
        kept.rename(weights)
    (said,) = run("load", "none", code=1)
    assert "The model `none` does not exist" in said


def test_reload_tells_what_changed_or_what_is_wrong(run, folder: Path) -> None:
    file = folder / "models.toml"
    before = file.read_text()
    assert run("reload") == ["nothing has changed"]
    file.write_text(before + "[models.d]\npath = 'tiny'\n")
    assert run("reload") == ["added: d"]
    file.write_text("nonsense")
    (said,) = run("reload", code=1)
    assert "models.toml, line 1: Expected" in said
    file.write_text(before)
    assert run("reload") == ["removed: d"]


def test_a_server_that_is_not_there_or_refuses_is_said(
    run, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDSVC_API_KEY", "")
    for words in (("ps",), ("status",), ("reload",), ("load", "a"), ("unload", "a")):
        (said,) = run(*words, code=1)
        hint = "say one of its keys by --api-key, or in EMBEDSVC_API_KEY"
        assert said == f"embedsvc: {url} wants a key: {hint}"
        (said,) = run(*words, "--api-key", "another", code=1)
        assert said == f"embedsvc: {url} does not take the key that was sent: {hint}"
        assert main([*words, "--url", "http://127.0.0.1:9/v1"]) == 1
        assert "embedsvc: no server at http://127.0.0.1:9" in capsys.readouterr().err
    assert run("ps", "--api-key", KEY)
    assert main(["ps", "--url", f"{url}/v1", "--api-key", KEY]) == 0


def test_who_reads_but_the_first_line_gets_no_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m embedsvc models --models {folder / 'models.toml'} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""


# --- whose key goes where ----------------------------------------------------------------------


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """Somebody who listens at the default address, where the shell has a key for OpenAI."""
    monkeypatch.delenv("EMBEDSVC_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    with FakeServer() as server:
        monkeypatch.setattr(address, "DEFAULT_URL", server.url.removesuffix("/v1"))
        yield server


@pytest.mark.parametrize(
    "words",
    [("ps",), ("status",), ("reload",), ("load", "a"), ("unload", "a"), ("bench", "--model", "m")],
    ids=lambda words: words[0],
)
def test_a_key_for_openai_does_not_go_to_whoever_listens_at_the_default_address(
    listener: FakeServer, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    short = ("--seconds", "0.01", "--warm-up", "0") if words[0] == "bench" else ()
    main([*words, *short])
    assert listener.keys
    assert "Bearer sk-of-openai" not in listener.keys
    listener.keys.clear()
    monkeypatch.setenv("EMBEDSVC_API_KEY", "of-embedsvc\n")
    main([*words, *short])
    assert listener.keys == {"Bearer of-embedsvc"}


def test_a_key_for_openai_goes_where_a_url_was_given(listener: FakeServer) -> None:
    main(["ps", "--url", listener.url])
    assert listener.keys == {"Bearer sk-of-openai"}


def test_a_key_that_no_header_holds_is_refused_and_not_shown() -> None:
    for variable in ("OPENAI_API_KEY", "EMBEDSVC_API_KEY"):
        for key in ("s\u00fcss", "a\nb", "\udcff"):
            with pytest.raises(
                SetupError, match=f"{variable}: a key is of printable ASCII"
            ) as said:
                key_of(None, "http://127.0.0.1", {variable: key})
            assert key not in str(said.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://",
        "http://[::1",
        "http://a:x",
        "http://a:99999",
        "ftp://a",
        "http://a..b",
        "http://a b",
        "http://a/\n",
        f"http://{'a' * 64}",
        "http://a/\u00fc",
    ],
)
def test_a_url_that_is_none_is_said_by_every_command(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["ps"], ["load", "a"], ["bench"], ["similarity", "a", "b"]):
        assert main([*words, "--url", url]) == 3
        assert "--url must be like http://127.0.0.1:8000" in capsys.readouterr().err


def test_this_machine_is_not_asked_through_a_proxy(
    listener: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    main(["ps"])
    assert listener.keys
    assert "does not answer as embedsvc does" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "similarity a b --backend numpy --model scorer",
        "embed {0}/texts.txt --output {0}/out.npy --backend numpy",
    ],
)
def test_a_command_that_needs_vectors_says_that_a_model_gives_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    CLASSIFIERS["bert-scores"].write(tmp_path / "scorer")
    file = tmp_path / "models.toml"
    file.write_text("[models.scorer]\npath = 'scorer'\n", encoding="utf-8")
    (tmp_path / "texts.txt").write_text("a\nb\n", encoding="utf-8")
    assert main([*words.format(tmp_path).split(), "--models", str(file)])
    (said,) = capsys.readouterr().err.splitlines()
    assert "`scorer` gives scores" in said
    assert not (tmp_path / "out").exists()
    assert main(["models", "--models", str(file)]) == 0
