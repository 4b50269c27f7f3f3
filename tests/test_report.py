"""`embedsvc report`: a whole one of a tiny model, and those that end early or go wrong."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.cli import main
from embedsvc.commands import report as command
from embedsvc.diagnosis.report import Model, Report, processes
from embedsvc.diagnosis.report import measure as measuring
from embedsvc.diagnosis.report.measure import Options
from embedsvc.diagnosis.report.processes import OwnServer
from embedsvc.errors import ServerError
from tests.support.checkpoints import write_bert
from tests.support.report import Reporter


@pytest.fixture(scope="module")
def reporter(tmp_path_factory: pytest.TempPathFactory) -> Reporter:
    """Over a cards file with one tiny model, `org/tiny`, and others that cannot be measured."""
    folder = tmp_path_factory.mktemp("report")
    tiny, broken = write_bert(folder / "tiny"), write_bert(folder / "broken")
    (broken / "model.safetensors").unlink()
    (folder / "models.toml").write_text(
        f"[models.\"org/tiny\"]\npath = '{tiny}'\n"
        "[models.away]\nrepo = 'BAAI/bge-m3'\nrevision = 'of-no-such-name'\n"
    )
    return Reporter(folder)


@pytest.fixture(scope="module")
def whole(reporter: Reporter) -> Report:
    """A whole report on a model that is well, one that is broken and one that is not here."""
    files = ["--markdown", str(reporter.folder / "whole.md")]
    report = reporter.run(*files, "--model", str(reporter.folder / "broken"), "--model", "away")
    assert reporter.code == 1
    assert reporter.paused == [0.2] * 5 + [1.0] * 3 + [5.0, 60.0]
    return report


def test_a_whole_report_has_all_that_it_should(whole: Report) -> None:
    model = whole.models[0]
    assert (model.error, whole.interrupted, whole.quick) == (None, False, False)
    assert (model.architecture, model.dimensions, model.max_tokens) == ("bert", 16, 32)
    assert 0 < (model.weights_bytes or 0) < 100_000
    assert model.load_seconds
    assert model.first_vector_milliseconds
    assert [pause.after_seconds for pause in model.pauses] == [0.2, 1.0, 5.0, 60.0]
    assert all(0 < each.computing_milliseconds < each.milliseconds for each in model.pauses)
    assert [load.shape for load in model.loads] == ["single", "single-16", "bulk", "mixed"]
    assert all(load.texts_per_second > 0 and not load.errors for load in model.loads)
    assert model.longest is not None
    assert model.longest.tokens == model.longest.of_tokens == 32
    assert list(model.memory) == ["before", "loaded", "used", "unloaded"]
    assert all(
        (use.process or 0) > 10 << 20 and use.device is None for use in model.memory.values()
    )
    checks = {parity.check: parity.passed for parity in model.parity}
    assert checks["alone = in a batch"] is True
    assert checks["equals sentence-transformers"] is None


def test_a_whole_report_says_what_the_machine_is(whole: Report) -> None:
    assert whole.backend.name == "numpy"
    assert whole.backend.dtype == "float32"
    assert set(whole.versions) >= {"embedsvc", "python", "mlx", "numpy"}
    assert whole.machine.usable_cores >= 1
    assert whole.machine.memory_bytes >= whole.machine.usable_memory_bytes > 0
    assert whole.backend.models_bytes < whole.backend.memory_bytes


@pytest.mark.usefixtures("whole")
def test_its_markdown_has_a_table_for_the_machine_and_each_model(reporter: Reporter) -> None:
    text = (reporter.folder / "whole.md").read_text()
    assert text.count("| what | found |") == 4
    assert "#### unlisted-1" in text
    assert "| one text after 60 s | " in text
    assert "<details><summary>JSON</summary>" in text


def test_a_model_that_fails_is_an_error_and_says_nothing_of_its_folder(whole: Report) -> None:
    assert [model.name for model in whole.models] == ["unlisted-1", "unlisted-2", "BAAI/bge-m3"]
    _, broken, away = whole.models
    assert "model.safetensors" in (broken.error or "")
    assert "/" not in (broken.error or "")
    assert "model `BAAI/bge-m3`: no files; repository BAAI/bge-m3" in (away.error or "")
    assert broken.loads == away.loads == []


def test_one_that_is_interrupted_ends_its_server_and_shows_what_it_has(
    reporter: Reporter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: object, **options: object) -> "subprocess.Popen[bytes]":
        started.append(popen(*args, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("EMBEDSVC_API_KEYS", "a key of the user's own server")
    reporter.interrupted_by = 1.0
    report = reporter.run("--quick")
    assert reporter.code == 130
    assert report.interrupted
    (model,) = report.models
    assert [pause.after_seconds for pause in model.pauses] == [0.2]
    assert model.loads == model.parity == []
    assert [process.returncode is not None for process in started] == [True]
    said = capsys.readouterr().out
    assert "\nunlisted-1\n" in said
    assert "quick: without pauses of more than a second" in said
    assert said.endswith("\ninterrupted, so that something is missing\n")


def test_a_quick_one_leaves_long_pauses_out() -> None:
    quick, whole = (Options(quick, 1.0, 1.0) for quick in (True, False))
    assert [list(measuring.pauses(each)) for each in (quick, whole)] == [
        [0.2, 1.0],
        [0.2, 1.0, 5.0, 60.0],
    ]


def test_json_goes_to_standard_output_in_place_of_the_tables(
    whole: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    args = SimpleNamespace(json=command.STDOUT, markdown=None)
    command._write(whole, args)  # type: ignore[arg-type]
    assert capsys.readouterr().out.startswith('{\n  "versions"')


def test_its_server_loads_a_model_as_its_card_says(tmp_path: Path) -> None:
    card = Card(
        id='m "of" \\ é',
        repo="org/m",
        revision="main",
        task="embed",
        pooling=("mean", "cls"),
        normalize=False,
        max_tokens=7,
        prompts={"query": "q: \"'\\\n\t", "a b": ""},
        plain_tokens=("<x>", "'"),
        dtype="float16",
        sha256="0" * 64,
    )
    file = tmp_path / "models.toml"
    file.write_text("\n".join(processes._card(card, tmp_path)), encoding="utf-8")
    (read,) = read_cards(file).by_id.values()
    assert read.id == card.id
    assert read.loads_like(replace(card, path=tmp_path))


def test_checks_are_told_once_whatever_else_is_said_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as soon as it is there: the second is not said before the first was heard."""
    heard = tmp_path / "heard"
    script = f"""
import pathlib, sys, time
for name in ("one", "two", "three"):
    print("a warning", file=sys.stderr, flush=True)
    print('{{"check": "%s", "passed": true, "found": ""}}' % name, end="", flush=True)
    print(flush=True)
    while not pathlib.Path({str(heard)!r} + name).exists():
        time.sleep(0.005)
print("it broke", file=sys.stderr)
sys.exit(4)
"""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        return popen([*command[:1], "-c", script, *command[3:]], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    checks = processes.verified(Card(id="m", repo="org/m"), tmp_path, "numpy")
    for name in ("one", "two", "three"):
        assert next(checks).check == name
        Path(f"{heard}{name}").touch()
    with pytest.raises(ServerError, match="it broke"):
        next(checks)


class Slow(OwnServer):
    """A server where each token takes its time, as often as there are tokens before it."""

    def __init__(self, clock: list[float]) -> None:
        self.target = SimpleNamespace(model="m")  # type: ignore[assignment]
        self.clock = clock
        self.lengths: list[int] = []

    def ask(self, method: str, path: str, body: dict | None = None, patience: float = 0) -> dict:
        tokens = len((body or {})["input"].split()) + 2
        self.lengths.append(tokens)
        self.clock[0] += tokens**2 / 1e6
        return {"usage": {"prompt_tokens": tokens}}

    def seconds_spent(self) -> float:
        return self.clock[0]


@pytest.mark.parametrize(
    ("most", "seconds", "lengths"),
    [(256, 5.0, [256]), (1500, 50.0, [512, 1024, 1500]), (32768, 20.0, [512, 1024, 2048, 4096])],
)
def test_texts_become_longer_as_long_as_there_is_time(
    most: int, seconds: float, lengths: list[int]
) -> None:
    clock = [0.0]
    server, model = Slow(clock), Model("m", max_tokens=most)
    texts = measuring.Texts(server, measuring.Clock(lambda: clock[0], lambda _: None))
    measuring._try_longer_and_longer(texts, model, Options(False, 1.0, seconds))
    assert [length + 1 for length in server.lengths] == lengths  # the full stop is one, too
    assert model.longest is not None
    assert (model.longest.tokens + 1, model.longest.of_tokens) == (lengths[-1], most)


def test_a_window_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--seconds", "61"]) == 3
    assert "--seconds is above 0 and at most 60" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    file = tmp_path / "none" / "report"
    assert main(["report", option, str(file)]) == 3
    printed = capsys.readouterr()
    assert f"{file} cannot be written" in printed.err
    assert printed.out == ""
