"""`embedsvc doctor`: what it says of what is right, and of each thing that is wrong."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from embedsvc import cli
from embedsvc.daemon.spec import State
from embedsvc.diagnosis import computing, surroundings
from embedsvc.errors import CardsError
from embedsvc.inference.ops.native import library
from tests.support.checkpoints import write_bert, write_json
from tests.support.http_server import answering
from tests.support.project import ROOT


class Doctor:
    """Runs it in a home of its own, with a cards file, at a port that is free."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.cards = home / "models.toml"
        self.code = 0
        self._capture = capture

    def lines(self, *options: str) -> list[str]:
        """What it prints; `code` is then its exit code."""
        if "--port" not in options:
            options = (*options, "--port", str(free_port()))
        self.code = cli.main(["doctor", "--models", str(self.cards), *options])
        return self._capture.readouterr().out.splitlines()

    def line(self, what: str, *options: str) -> str:
        """The line about something, and its hint."""
        lines = self.lines(*options)
        (number,) = [i for i, line in enumerate(lines) if line[7:].startswith(f"{what}: ")]
        hinted = number + 1 < len(lines) and "->" in lines[number + 1]
        return " ".join(line.strip() for line in lines[number : number + 1 + hinted])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(surroundings, "environment_file", lambda system: tmp_path / f"env{system}")
    monkeypatch.setattr(surroundings, "manager", lambda *_: FakeManager(State(installed=False)))
    folder = write_bert(tmp_path / "tiny")
    (tmp_path / "models.toml").write_text(f"[models.tiny]\npath = '{folder}'\n")
    return Doctor(tmp_path, capsys)


class FakeManager:
    name, file = "systemd", Path("/etc/unit")

    def __init__(self, state: State) -> None:
        self._state = state

    def state(self) -> State:
        return self._state


def test_where_all_is_well_it_says_so(doctor: Doctor) -> None:
    lines = doctor.lines("--backend", "numpy")
    assert doctor.code == 0, lines
    assert lines[-1] == "all is well"
    assert [line for line in lines if line.startswith("WRONG")] == []
    said = {line.split()[1].rstrip(":") for line in lines if line.startswith(("ok", "note"))}
    assert said >= {
        "embedsvc",
        "Python",
        "packages",
        "settings",
        "backend",
        "cores",
        "memory",
        "cards",
    }
    assert said >= {"tiny", "downloads", "address", "service", "system"}


def test_it_says_what_a_model_is(doctor: Doctor) -> None:
    line = doctor.line("tiny")
    assert line.startswith("ok ")
    assert line.endswith(f"bert, 0 MB of weights, in {doctor.home}/tiny")


# --- models ----------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_wrong(doctor: Doctor) -> None:
    doctor.cards.write_text("[models.gone]\npath = 'nowhere'\n")
    line = doctor.line("gone")
    assert line.startswith("WRONG")
    assert f"no folder {doctor.home}/nowhere" in line
    assert "-> correct its `path`" in line
    assert doctor.code == 1


def test_a_file_of_weights_that_was_cut_off_is_wrong(doctor: Doctor) -> None:
    weights = doctor.home / "tiny/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    line = doctor.line("tiny")
    assert line.startswith("WRONG")
    assert "model.safetensors" in line


def test_weights_with_another_digest_are_wrong(doctor: Doctor) -> None:
    doctor.cards.write_text(doctor.cards.read_text() + f"sha256 = '{'0' * 64}'\n")
    assert "is not the file the card names" in doctor.line("tiny")
    assert doctor.code == 1


def test_an_architecture_that_is_not_supported_is_wrong(doctor: Doctor) -> None:
    write_bert(doctor.home / "tiny", model_type="abacus")
    assert "model_type `abacus` is not supported" in doctor.line("tiny")
    assert doctor.code == 1


def test_a_tokeniser_that_is_missing_is_wrong(doctor: Doctor) -> None:
    (doctor.home / "tiny/tokenizer.json").unlink()
    assert doctor.line("tiny").startswith("WRONG")


def test_a_card_with_a_wrong_key_is_wrong_and_the_rest_is_still_looked_at(doctor: Doctor) -> None:
    doctor.cards.write_text("[models.x]\npath = 'tiny'\ncolour = 'red'\n")
    lines = doctor.lines()
    assert doctor.code == 1
    assert any(line.startswith("WRONG  cards") and "unknown key `colour`" in line for line in lines)
    assert any(" address: " in line for line in lines)


def test_nothing_is_downloaded(doctor: Doctor) -> None:
    """With a hub at hand that would take note, and one model half downloaded."""
    doctor.cards.write_text(
        "[models.small]\nrepo = 'org/small'\n[models.half]\nrepo = 'org/half'\n"
        "[models.first]\nrepo = 'org/first'\npreload = true\n"
    )
    half = doctor.home / "hub/models--org--half"
    write_json(half / "snapshots/abc/config.json", {"model_type": "bert"})
    (half / "refs").mkdir()
    (half / "refs/main").write_text("abc")
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.setblocking(False)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "embedsvc", "doctor", "--models", str(doctor.cards)],
            env=os.environ | {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(doctor.home / "hub")},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        with pytest.raises(BlockingIOError):
            hub.accept()
    assert done.returncode == 1, done.stderr
    assert "note   to download: 1, each when it is first asked for: small" in done.stdout
    assert "note   first: not here; downloaded when the server starts" in done.stdout
    assert "WRONG  half: model `half`: " in done.stdout


def test_of_many_models_that_are_not_here_a_few_are_named(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(doctor.home / "hub"))
    cards = [f"[models.m{number}]\nrepo = 'no-org/m{number}'\n" for number in range(40)]
    doctor.cards.write_text("".join(cards))
    line = doctor.line("to download")
    assert line == (
        "note   to download: 40, each when it is first asked for: "
        "m0, m1, m2 and 37 more, which `embedsvc models` lists"
    )
    assert all(len(line) < 200 for line in doctor.lines())


# --- the rest --------------------------------------------------------------------------------


def test_a_wrong_setting_is_wrong_and_the_rest_is_looked_at_by_the_defaults(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDSVC_BACKEND", "abacus")
    lines = doctor.lines()
    assert doctor.code == 1
    (line,) = [line for line in lines if line.startswith("WRONG")]
    assert "EMBEDSVC_BACKEND=abacus" in line
    assert any(line.startswith("ok     backend") for line in lines)


def test_a_backend_that_is_asked_for_and_not_there_is_wrong(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise CardsError("backend `mlx` cannot be loaded")

    monkeypatch.setattr(computing, "open_device", refuse)
    assert doctor.line("backend", "--backend", "mlx").startswith("WRONG")
    assert doctor.code == 1


def test_kernels_that_were_not_built_are_worth_a_note(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "built", lambda: False)
    monkeypatch.setattr("embedsvc.inference.device._gpu_likely", lambda: False)
    line = doctor.line("kernels")
    assert line.startswith("note")
    assert "apt-get install gcc" in line
    assert doctor.code == 0


def test_a_driver_without_mlx_is_worth_a_note(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.inference.device._gpu_likely", lambda: False)
    monkeypatch.setattr(computing, "has_driver", lambda: True)
    monkeypatch.setattr(computing, "_mlx", lambda: False)
    assert "pip install 'embedsvc[cuda]'" in doctor.line("GPU")


def test_it_says_who_answers_at_the_address(doctor: Doctor) -> None:
    with answering(200, b'{"status": "ready"}') as port:
        line = doctor.line("address", "--port", str(port))
    assert line == f"ok     address: embedsvc answers at localhost:{port}: ready"
    with answering(200, b"<html>") as port:
        line = doctor.line("address", "--port", str(port))
    assert line.startswith("WRONG  address: something else listens")
    assert "take another port with --port" in line


def test_a_unix_socket_is_looked_at_in_place_of_the_address(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = Path(tempfile.mkdtemp(dir="/tmp")) / "socket"  # a socket's path is short
    try:
        monkeypatch.setenv("EMBEDSVC_UDS", str(path))
        assert doctor.line("address") == f"ok     address: {path} is free"
        path.touch()
        assert doctor.line("address").startswith(f"WRONG  address: {path} is there, and no socket")
        monkeypatch.setenv("EMBEDSVC_UDS", "/no/such/folder/socket")
        assert doctor.line("address").endswith("-> make its folder, or chown it")
    finally:
        shutil.rmtree(path.parent)


def test_an_address_of_another_machine_cannot_be_had(doctor: Doctor) -> None:
    line = doctor.line("address", "--host", "no.such.host.invalid")
    assert line.startswith("WRONG")


def test_an_open_address_without_keys_is_wrong(doctor: Doctor) -> None:
    assert "without keys" in doctor.line("address", "--host", "0.0.0.0")  # noqa: S104
    assert doctor.code == 1


@pytest.mark.parametrize("system", [False, True])
def test_a_service_that_ended_says_why_and_where_to_look(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, system: bool
) -> None:
    def ended(_machine: object, job: surroundings.ServiceSpec) -> FakeManager:
        return FakeManager(State(installed=job.system is system, last_exit=4))

    monkeypatch.setattr(surroundings, "manager", ended)
    lines = doctor.lines()
    assert doctor.code == 1
    number = [line[:5] for line in lines].index("WRONG")
    assert "it last ended with 4: a model cannot be loaded" in lines[number]
    assert f"`embedsvc service logs{' --system' if system else ''}`" in lines[number + 1]


def test_a_service_that_runs_is_well(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    running = State(installed=True, running=True, pid=1, last_exit=3)
    monkeypatch.setattr(surroundings, "manager", lambda *_: FakeManager(running))
    assert doctor.line("service").startswith("ok     service: running, pid 1")


def test_keys_that_others_may_read_are_wrong(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "manager", lambda *_: FakeManager(State(installed=True)))
    file = doctor.home / "envFalse"
    file.touch(0o644)
    lines = doctor.lines()
    assert f"WRONG  service: others may read {file}, where keys are" in lines
    file.chmod(0o600)
    doctor.lines()
    assert doctor.code == 0


def test_a_cache_folder_that_is_a_file_is_wrong(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDSVC_CACHE_FOLDER", str(doctor.cards))
    assert doctor.line("cache folder").endswith(f"{doctor.cards} is not a folder")
    assert doctor.code == 1


def test_a_disk_that_is_full_is_wrong(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "SCARCE", 1 << 60)
    assert doctor.line("downloads").endswith("-> make room")
    assert doctor.code == 1
