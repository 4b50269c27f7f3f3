"""Whatever a command is given, and wherever its output goes: a line, a code, and no traceback."""

import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedsvc import __main__, cli
from embedsvc.cli import COMMANDS, main
from embedsvc.exits import EXIT_INTERRUPTED, EXITS
from embedsvc.wording.plain import in_line
from tests.support.project import ROOT

COMMAND = [sys.executable, "-m", "embedsvc"]
ODD = {
    "empty": b"",
    "not UTF-8": b"\xff",
    "long": b"x" * 5000,
    "lines and escapes": b"a\nb\x1b[31m",
    "a folder": b"..",
    "no file": b"no/such/file",
    "nobody's home": b"~no-such-user/x",
    "a device": b"/dev/null",
    "dashes": b"--",
    "other scripts": "ü東".encode(),
    "a host that is none": b"a..b",
}
"""Arguments, by what is odd about them."""
GIVEN: dict[str, list[list[str]]] = {
    "serve": [["--models"], ["--host"], ["--port"], ["--max-memory"], ["--environment-file"]],
    "embed": [["none.txt", "--output"], ["--output", "out.npy"], ["--output", "o.npy", "--url"]],
    "search": [[], ["none.npy"]],
    "rerank": [[], ["a", "none.txt", "--model"]],
    "similarity": [[], ["a"], ["a", "b", "--model"], ["--lines"]],
    "ps": [[], ["--url"]],
    "load": [[], ["a", "--keep-alive"]],
    "unload": [[]],
    "reload": [["--api-key"]],
    "status": [["--url"]],
    "models": [[], ["--models"]],
    "pull": [[]],
    "rm": [[]],
    "bench": [["--url"], ["--shapes"], ["--seconds"], ["--model"]],
    "convert": [["tiny"], []],
    "doctor": [["--models"], ["--host"], ["--port"]],
    "report": [["--models"], ["--seconds"], ["--quick", "--models", "models.toml", "--model"]],
    "service": [[], ["logs", "--lines"], ["install", "--dry-run", "--port"]],
    "verify": [[]],
    "try": [[], ["tiny", "--models"]],
    "completion": [[]],
}
"""Arguments before the odd one."""
CASES = [
    pytest.param([name, *given], odd, id=f"{' '.join([name, *given])}: {what}")
    for name, several in GIVEN.items()
    for given in several
    for what, odd in ODD.items()
    # These serve: an empty file of variables, and settings that are not set.
    if (name, odd) not in (("serve", b"/dev/null"), ("serve", b""))
]


def test_every_command_is_tried() -> None:
    assert set(GIVEN) == set(COMMANDS)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a card whose model is not there, a home, no hub, and nobody at the address."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text("[models.tiny]\npath = 'nowhere'\npreload = true\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in os.environ if name.startswith("EMBEDSVC_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.mark.parametrize(("given", "odd"), CASES)
def test_an_odd_argument_is_refused_in_a_line(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    odd: bytes,
) -> None:
    monkeypatch.setattr("embedsvc.commands.address.DEFAULT_URL", "http://127.0.0.1:9")
    try:
        code = main([*given, os.fsdecode(odd)])
    except SystemExit as ended:
        code = ended.code
    assert code in EXITS
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = said.splitlines()
    assert len(lines) <= 2 if code == 2 else len(lines) <= 1  # usage, and what is wrong
    assert all(len(line) < 800 and line.isprintable() for line in lines)
    assert said or code == 0 or given[0] in ("doctor", "report", "try")  # which print what is wrong


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    said = in_line(f"--url must be like this, not {'x' * 9000}: it is too long")
    assert said.startswith("--url must be like this, not xxx")
    assert said.endswith("xxx: it is too long")
    assert len(said) < 700


# --- where the output goes ---------------------------------------------------------------------

READ = ["models", "--help", "completion bash", "doctor", "bench --url http://127.0.0.1:9/v1"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def shell(line: str, **environ: str) -> tuple[int, str]:
    """Exit code and what is on the standard error of `$E`'s line, in bash."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env=ENVIRONMENT | {"E": f"{sys.executable} -m embedsvc", "HF_HUB_OFFLINE": "1"} | environ,
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", READ)
def test_nobody_reads_the_output(place: Path, words: str) -> None:
    code, said = shell(f"$E {words} | true")
    assert code in (0, 1, 141)
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize("words", READ)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_are_closed(place: Path, words: str, closed: str) -> None:
    code, said = shell(f"$E {words} {closed}")
    assert code in (0, 1)
    assert "Traceback" not in said
    assert "lost sys" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a device that is full")
@pytest.mark.parametrize("words", ["models", "completion bash", "doctor"])
def test_the_disk_is_full(place: Path, words: str) -> None:
    code, said = shell(f"$E {words} > /dev/full")
    assert (code, said) == (1, "embedsvc: [Errno 28] No space left on device\n")
    assert shell("$E models --models none 2> /dev/full") == (3, "")


@pytest.mark.parametrize("words", READ)
def test_the_terminal_is_narrow_and_of_another_time(place: Path, words: str) -> None:
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "7"}
    code, said = shell(f"$E {words} > out", **old, PYTHONIOENCODING="ascii")
    assert code in (0, 1)
    assert "Traceback" not in said
    (place / "out").read_bytes().decode("ascii")


@pytest.mark.parametrize("name", COMMANDS)
def test_there_is_no_home(
    place: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container that runs as a number of which nobody has heard."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("embedsvc.commands.address.DEFAULT_URL", "http://127.0.0.1:9")
    (place / "models.toml").unlink()  # so that the user's own would be looked for
    short = {
        "serve": ["--backend", "numpy", "--cores", "0"],
        "embed": ["none.txt", "--output", "o.npy", "--model", "none"],
        "search": ["none.npy", "x"],
        "rerank": ["a", "none.txt"],
        "report": ["--models", "none.toml"],  # the packaged model would be measured
        "similarity": ["a", "b", "--model", "none"],
        "convert": ["none", "out"],
        "service": ["status"],
        "completion": ["bash"],
    }
    needs = ("load", "unload", "verify", "rm", "pull", "try")
    arguments = short.get(name, ["none"] if name in needs else [])
    try:
        code = main([name, *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code in EXITS
    said = capsys.readouterr()
    assert len(said.err.splitlines()) <= 1
    if name in ("models", "completion"):
        assert code == 0
    if name in ("service", "doctor"):
        assert "there is no home folder: set HOME" in said.err + said.out


# --- Ctrl-C --------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Somebody who takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


WAITING = [
    "ps --url URL",
    "status --url URL",
    "reload --url URL",
    "load a --url URL",
    "unload a --url URL",
    "bench --url URL/v1 --model m",
    "embed in.txt --output out.npy --model m --url URL/v1",
    "similarity a b --model m --url URL/v1",
    "doctor --host 127.0.0.1 --port PORT",
    "pull org/model",
]


@pytest.mark.parametrize("words", WAITING)
def test_a_command_that_waits_is_interrupted(
    silent: socket.socket, tmp_path: Path, words: str
) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    port = str(silent.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    arguments = words.replace("URL", url).replace("PORT", port).split()
    hub = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT | hub | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        connection, _ = silent.accept()  # so it waits for an answer
        with connection:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=50)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_works_is_interrupted(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while its options are looked for, which imports what it needs."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_command", interrupted)
    assert main([name]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == ""


def test_a_command_is_interrupted_while_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str, *_: object) -> None:
        if name == "embedsvc.cli":
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "embedsvc.cli")
    monkeypatch.delattr("embedsvc.cli")
    monkeypatch.setattr(sys, "meta_path", [Finder(interrupted), *sys.meta_path])
    assert __main__.main() == EXIT_INTERRUPTED


def test_imports_start_no_threads_for_products_and_collect_no_garbage() -> None:
    """Each of both would take a tenth of a start; garbage is collected once all is imported."""
    code = (
        "import gc, sys, threadpoolctl; sys.argv = ['embedsvc', 'models', '--help'];"
        "from embedsvc import __main__, cli; run = cli._run;"
        "cli._run = lambda given: print(gc.isenabled()) or run(['models']);"
        "__main__.main(); import numpy;"
        "print(gc.isenabled(), gc.get_freeze_count() > 0,"
        " {each['num_threads'] for each in threadpoolctl.threadpool_info()} <= {1})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in ENVIRONMENT.items() if "OPENBLAS" not in name},
        capture_output=True,
        text=True,
        timeout=50,
    )
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1], done.stderr) == ("False", "True True True", "")


class Finder:
    """Finds nothing, and tells what is looked for."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self.find_spec = tell
