"""How the server is reached, and how it ends: sockets, TLS, signals."""

import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import httpx2
import pytest

from embedsvc.exits import EXIT_HUNG
from embedsvc.probe import Found, Place, probe
from tests.support.programs import program
from tests.support.project import ROOT
from tests.support.server import COMMAND, fails, serving

HANGS = """
import sys, threading
from embedsvc import cli
from embedsvc.web import server
from embedsvc.inference.encoder import Encoder
whole = server._announce
def announced(*given):
    whole(*given)
    Encoder.run = lambda self, items, head: threading.Event().wait()
server._announce = announced
server.CLOSE_SECONDS = 0.5
sys.exit(cli.main(sys.argv[1:]))
"""
"""A server whose device hangs from the first request on."""


@pytest.fixture
def cards(tmp_path: Path, tiny_folder: Path) -> Path:
    file = tmp_path / "models.toml"
    file.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    return file


BODY = json.dumps({"model": "tiny", "input": "hello"})


def start_request(url: str) -> HTTPConnection:
    """A request that the server has begun to answer."""
    client = HTTPConnection(url.removeprefix("http://"), timeout=30)
    client.request("POST", "/v1/embeddings", BODY)
    assert httpx2.get(f"{url}/health").status_code == 200  # it has read the other by now
    return client


def ask_for_ever(url: str) -> None:
    while True:
        httpx2.get(f"{url}/health", timeout=5)


def hanging_server(cards: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HANGS, "serve", "--port", "0", "--backend", "numpy"]
    return subprocess.Popen(
        [*command, "--models", str(cards), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if "Try:" in line:
            return line.split()[2].removesuffix("/v1/embeddings")
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_whatever_hangs(cards: Path, number: int) -> None:
    process = hanging_server(cards)
    try:
        url = url_of(process)
        client = start_request(url)
        process.send_signal(number)
        with pytest.raises(httpx2.HTTPError):
            ask_for_ever(url)  # until it has heard the first one
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        client.close()
    finally:
        process.kill()
        process.communicate()


def test_what_hangs_holds_up_the_end_for_so_long_and_no_longer(cards: Path) -> None:
    process = hanging_server(cards, "--shutdown-seconds", "1")
    try:
        client = start_request(url_of(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == EXIT_HUNG
        client.close()
    finally:
        process.kill()
        process.communicate()


def test_readiness_goes_first(cards: Path) -> None:
    with serving("--backend", "numpy", "--drain-seconds", "1", cards=cards) as (url, process):
        assert httpx2.get(f"{url}/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        with httpx2.Client() as client:
            while (answer := client.get(f"{url}/ready")).status_code == 200:
                pass
            assert "shutting down" in answer.json()["error"]["message"]
            # Meanwhile it answers as ever, and new clients too.
            assert client.get(f"{url}/health").status_code == 200
            body = {"model": "tiny", "input": "hello"}
            assert httpx2.post(f"{url}/v1/embeddings", json=body).status_code == 200
        assert process.wait(timeout=30) == 0


# --- unix sockets ------------------------------------------------------------------------------


class UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def serving_at(path: Path, cards: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*COMMAND, "--uds", str(path), "--models", str(cards), "--backend", "numpy"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert any(f"--unix-socket {path} " in line for line in process.stdout)
    return process


def test_a_unix_socket_is_listened_at_and_gone_afterwards(path: Path, cards: Path) -> None:
    process = serving_at(path, cards)
    try:
        client = UnixConnection(path)
        client.request("POST", "/v1/embeddings", BODY, {"content-type": "application/json"})
        answer = client.getresponse()
        assert (answer.status, len(json.loads(answer.read())["data"])) == (200, 1)
        client.close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        place = Place("localhost", 8000, str(path))
        assert probe(place) == Found("ready", "ready")
        process.terminate()
        assert process.wait(20) == 0
        assert not path.exists()
        assert probe(place) == Found("nobody", "nothing listens there")
    finally:
        process.kill()
        process.communicate()


def test_a_socket_that_a_dead_server_left_is_replaced(path: Path, cards: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    process = serving_at(path, cards)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_path_that_is_taken_is_exit_code_5(path: Path, cards: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        code, said = fails("--uds", str(path), "--models", str(cards))
        assert (code, said.count("\n")) == (5, 1)
        assert f"cannot listen at {path}: Address already in use" in said
    path.unlink()
    path.write_text("somebody's")
    assert fails("--uds", str(path), "--models", str(cards))[0] == 5
    assert path.read_text() == "somebody's"


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    openssl = program("openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    command += f" -keyout {key} -out {cert} -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


def test_with_a_certificate_it_speaks_tls_and_nothing_else(
    certificate: tuple[Path, Path], cards: Path
) -> None:
    cert, key = certificate
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--backend", "numpy"]
    with serving(*options, cards=cards) as (url, _):
        assert url.startswith("https://")
        host, port = url.removeprefix("https://").split(":")
        trusted = ssl.create_default_context(cafile=str(cert))
        client = HTTPSConnection(host, int(port), timeout=20, context=trusted)
        client.request("POST", "/v1/embeddings", BODY)
        answer = client.getresponse()
        assert (answer.status, len(json.loads(answer.read())["data"])) == (200, 1)
        client.close()
        assert probe(Place(host, int(port), tls=True)) == Found("ready", "ready")
        assert probe(Place(host, int(port))).who == "other"
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(f"http://{host}:{port}/health")


def test_who_does_not_shake_hands_counts_and_is_not_waited_for(
    certificate: tuple[Path, Path], cards: Path
) -> None:
    cert, key = certificate
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--backend", "numpy"]
    options += ["--max-connections", "5", "--read-seconds", "2"]
    trusted = ssl.create_default_context(cafile=str(cert))
    with serving(*options, cards=cards) as (url, process), ExitStack() as stack:
        host, port = url.removeprefix("https://").split(":")
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            for _ in range(60)
        ]
        with httpx2.Client(verify=trusted, timeout=20) as client:
            while True:  # those beyond the limit are gone soon
                with suppress(httpx2.HTTPError):
                    figures = client.get(f"https://localhost:{port}/metrics").text
                    break
        (connections,) = [
            float(line.split()[1])
            for line in figures.splitlines()
            if line.startswith("embedsvc_connections ")
        ]
        assert connections <= 10
        for each in silent:
            with suppress(ConnectionError):
                assert each.recv(1) == b""
        process.terminate()
        assert process.communicate(timeout=30)[1].count("Traceback") == 0
        assert process.returncode == 0


def test_a_failed_handshake_leaves_nothing_behind(
    certificate: tuple[Path, Path], cards: Path
) -> None:
    cert, key = certificate
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--backend", "numpy"]
    options += ["--max-connections", "3"]
    trusted = ssl.create_default_context(cafile=str(cert))
    with serving(*options, cards=cards) as (url, _):
        host, port = url.removeprefix("https://").split(":")
        for sent in (b"GET /health HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\5hello", b"") * 20:
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(sent)
                if sent:
                    with suppress(ConnectionError):
                        while client.recv(100):
                            pass
        with httpx2.Client(verify=trusted, timeout=20) as client:
            while "embedsvc_connections 1.0\n" not in client.get(f"{url}/metrics").text:
                pass


@pytest.mark.parametrize("options", [("absent.pem",), (__file__,), (None, "key.pem")])
def test_a_certificate_that_cannot_be_used_is_exit_code_3(options: tuple[str | None, ...]) -> None:
    given = zip(("--tls-cert", "--tls-key"), options, strict=False)
    words = [word for name, value in given if value for word in (name, value)]
    code, said = fails("--port", "0", *words)
    assert (code, said.count("\n")) == (3, 1)
    assert "tls_" in said
