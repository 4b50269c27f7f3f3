"""`embedsvc doctor`: what it says of the settings, the machine and the service."""

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedsvc.daemon.spec import State
from embedsvc.diagnosis import computing, surroundings
from embedsvc.errors import CardsError
from embedsvc.inference import gpu
from embedsvc.inference.ops.native import library
from embedsvc.system.mac import Mac
from tests.support.doctor import Doctor, FakeManager
from tests.support.http_server import answering


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
    def refuse(*_: object, **__: object) -> None:
        raise CardsError("backend `mlx` cannot be loaded")

    monkeypatch.setattr(computing, "open_device", refuse)
    assert doctor.line("backend", "--backend", "mlx").startswith("WRONG")
    assert doctor.code == 1


def test_kernels_that_were_not_built_are_worth_a_note(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "built", lambda: False)
    monkeypatch.setattr("embedsvc.inference.device.gpu_likely", lambda: False)
    line = doctor.line("kernels")
    assert line.startswith("note")
    assert "apt-get install gcc" in line
    assert doctor.code == 0


def test_a_driver_without_mlx_is_worth_a_note(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.inference.device.gpu_likely", lambda: False)
    monkeypatch.setattr(gpu, "this_mac", lambda: None)
    monkeypatch.setattr(gpu, "has_driver", lambda: True)
    monkeypatch.setattr(gpu, "mlx_installed", lambda: False)
    assert "pip install 'embedsvc[cuda]'" in doctor.line("GPU")


@pytest.mark.parametrize(
    ("backend", "dtype", "fits", "helps"),
    [
        ("mlx", "float16", "2.1", "`embedsvc convert MODEL FOLDER --bits 4`"),
        ("native", "float32", "1.1", "`--dtype int8`"),
        ("native", "int8", "4.3", "a smaller model;"),
        ("numpy", "float32", "1.1", "a smaller model;"),
    ],
)
def test_on_a_small_machine_it_says_what_fits_and_what_helps(
    backend: str, dtype: str, fits: str, helps: str
) -> None:
    dtypes = ("float32", "int8") if backend == "native" else (dtype,)
    ops: Any = SimpleNamespace(name=backend, dtype=dtype, dtypes=dtypes, memory=5 << 30)
    (finding,) = computing.room(ops, 4 << 30)
    assert finding.mark == "note"
    assert f"{fits} billion parameters in {dtype}" in finding.seen
    assert helps in finding.hint
    (finding,) = computing.room(ops, 8 << 30)
    assert finding.mark == "ok"


@pytest.mark.parametrize("macos", [14, 15])
def test_an_older_macos_does_not_keep_weights_ready(
    macos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    metal = SimpleNamespace(name="mlx", dtype="float16", device="Apple M1 (Metal)")
    opened = SimpleNamespace(ops=metal, close=lambda: None)
    monkeypatch.setattr(computing, "open_device", lambda *_, **__: opened)
    monkeypatch.setattr(computing, "this_mac", lambda: Mac(macos, silicon=True, translated=False))
    said = [finding.seen for finding in computing.backend("auto") if finding.mark == "note"]
    assert bool(said) is (macos < 15)
    assert all("macOS 14 may take away what is not used" in each for each in said)


def test_a_mac_whose_python_is_translated_is_told_which_one_to_take(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.inference.device.gpu_likely", lambda: False)
    monkeypatch.setattr(gpu, "this_mac", lambda: Mac(15, silicon=True, translated=True))
    line = doctor.line("GPU")
    assert line.startswith("note")
    assert "-> take a Python for Apple silicon" in line
    assert "cuda" not in line.lower()


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


def test_on_a_mac_a_service_that_may_not_read_its_cards_is_wrong_while_it_does_not_run(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings.sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(doctor.home))
    cards = doctor.home / "Documents/models.toml"
    (doctor.home / "envFalse").write_text(f"EMBEDSVC_MODELS={cards}\n")
    (doctor.home / "envFalse").chmod(0o600)
    for state, wanted in (
        (State(installed=True, last_exit=3), 1),
        (State(installed=True, running=True, pid=1), 0),
    ):
        monkeypatch.setattr(surroundings, "manager", lambda *_, state=state: FakeManager(state))
        found = [each.seen for each in surroundings.service(system=False)]
        told = [seen for seen in found if f"EMBEDSVC_MODELS ({cards})" in seen]
        assert len(told) == wanted


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
