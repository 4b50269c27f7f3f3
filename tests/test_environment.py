"""The environment file, the log file, and what systemd is told."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from embedsvc.daemon.environment import read_environment, updated
from embedsvc.daemon.sd_notify import notify
from embedsvc.errors import CardsError
from embedsvc.telemetry.logfile import LogFile, log_to
from tests.support.daemon import ENVIRONMENT


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text(updated("", ENVIRONMENT))
    assert read_environment(file) == ENVIRONMENT


def test_comments_quotes_and_spaces_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text('\n# A=1\n; B=2\n  C = 3 \nD=\'a "b"\'\nE="x\\"y"\nF=a\\ b\n')
    assert read_environment(file) == {"C": "3", "D": 'a "b"', "E": 'x"y', "F": "a b"}


def test_only_the_lines_of_given_values_change() -> None:
    text = "# mine\nA=1\nB=2\nA=3\n"
    assert updated(text, {"A": "4", "C": "5"}) == "# mine\nA=4\nB=2\nC=5\n"
    assert updated(text, {}) == text


@pytest.mark.parametrize("line", ["no equals sign", "1A=2", "=3", "export A=1"])
def test_a_line_that_is_no_setting_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "environment"
    file.write_text(f"A=1\n{line}\n")
    with pytest.raises(CardsError, match=r"environment, line 2: must be NAME=value"):
        read_environment(file)


def test_a_value_of_two_lines_is_refused() -> None:
    with pytest.raises(CardsError, match=r"A cannot be kept: 'one\\nB=two' has a character"):
        updated("", {"A": "one\nB=two"})


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CardsError, match="No such file"):
        read_environment(tmp_path / "none")


def test_a_server_reads_its_environment_file_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "environment").write_text("EMBEDSVC_PORT=99999\n")
    (tmp_path / "log").touch()
    options = ("--environment-file", str(tmp_path / "environment"))
    done = subprocess.run(
        [sys.executable, "-m", "embedsvc", "serve", *options], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "EMBEDSVC_PORT=99999: must be at most 65535" in done.stderr


# --- the log file ----------------------------------------------------------------------------


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with LogFile(path) as log:
        print("one", file=log)
        path.rename(tmp_path / "log.0")
        print("two", file=log)
        (tmp_path / "new").touch()
        (tmp_path / "new").rename(path)  # newsyslog puts an empty one there
        print("three", file=log)
    assert (tmp_path / "log.0").read_text() == "one\n"
    assert path.read_text() == "three\n"


def test_a_log_is_added_to_and_is_its_user_s_alone(tmp_path: Path) -> None:
    for word in ("one", "two"):
        with LogFile(tmp_path / "log") as log:
            print(word, file=log)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CardsError, match=r"log_file .*none/log: No such file"):
        log_to(tmp_path / "none" / "log")


def test_a_log_that_could_not_be_opened_ends_in_silence(tmp_path: Path) -> None:
    """Python 3.13 tells what its finaliser raises, which closes it."""
    log = LogFile.__new__(LogFile)
    with pytest.raises(OSError, match="No such file"):
        log.__init__(tmp_path / "none" / "log")
    log.close()
    assert log.closed


def test_a_log_whose_folder_went_away_keeps_its_own_file_open(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with LogFile(tmp_path / "logs" / "log") as log:
        (tmp_path / "logs").rename(tmp_path / "moved")
        with pytest.raises(OSError, match="No such file"):
            log.write("lost\n")
        with (tmp_path / "other").open("w") as other:  # which would have got its descriptor
            (tmp_path / "moved").rename(tmp_path / "logs")
            log.write("there\n")
            other.write("mine")
    assert (tmp_path / "logs" / "log").read_text() == "there\n"
    assert (tmp_path / "other").read_text() == "mine"


def test_a_server_s_errors_go_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--log-file", str(log), "--models", str(tmp_path / "none.toml"), "--port", "0")
    done = subprocess.run(
        [sys.executable, "-m", "embedsvc", "serve", *options], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert "none.toml: No such file or directory" in log.read_text()


# --- systemd ---------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    if abstract and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    name = f"embedsvc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        listener.bind(f"\0{name}" if abstract else str(tmp_path / "notify"))
        address = f"@{name}" if abstract else str(tmp_path / "notify")
        notify("READY=1", {"NOTIFY_SOCKET": address})
        assert listener.recv(100) == b"READY=1"


def test_where_there_is_no_systemd_nobody_is_told() -> None:
    notify("READY=1", {})
