"""deploy/nginx.conf in front of two replicas. Needs nginx: `apt-get install nginx-light`."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.support.checkpoints import write_bert
from tests.support.project import ROOT
from tests.support.programs import program
from tests.support.server import serving

TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[tuple[str, subprocess.Popen[str]]]]:
    cards = tmp_path / "models.toml"
    write_bert(tmp_path / "tiny")
    cards.write_text("[models.tiny]\npath = 'tiny'\npreload = true\n")
    with contextlib.ExitStack() as stack:
        options = ("--backend", "numpy")
        yield [stack.enter_context(serving(*options, cards=cards)) for _ in range(2)]


@pytest.fixture
def url(
    replicas: list[tuple[str, subprocess.Popen[str]]], tmp_path: Path
) -> Iterator[str]:
    """The address of an nginx with deploy/nginx.conf, in which only ports and folders are changed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    ports = [replica.rpartition(":")[2] for replica, _ in replicas]
    for was, now in (("8000", str(port)), ("8001", ports[0]), ("8002", ports[1])):
        assert f"127.0.0.1:{was}" in text
        text = text.replace(f"127.0.0.1:{was}", f"127.0.0.1:{now}")
    folders = "".join(f"{name}_temp_path {tmp_path / name};" for name in TEMPORARY)
    (tmp_path / "nginx.conf").write_text(text.replace("http {", f"http {{ {folders}", 1))
    pid = tmp_path / "pid"
    main = f"daemon off; pid {pid}; error_log {tmp_path / 'error.log'};"
    if os.getuid() == 0:
        main += " user root;"  # another user may not write to the test's folder
    nginx = program("nginx")
    command = [nginx, "-p", str(tmp_path), "-e", "stderr", "-c", "nginx.conf", "-g", main]
    process = subprocess.Popen(command)
    try:
        while not pid.exists():  # it listens once the file is there
            assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def embed(url: str, texts: list[str]) -> Any:
    answer = httpx2.post(
        f"{url}/v1/embeddings", json={"model": "tiny", "input": texts}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def counted(url: str) -> float:
    """How many texts a replica has computed."""
    for line in httpx2.get(f"{url}/metrics").text.splitlines():
        if line.startswith("embedsvc_texts_total{"):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_replicas_share_the_work_and_one_that_is_killed_is_not_missed(
    replicas: list[tuple[str, subprocess.Popen[str]]], url: str
) -> None:
    texts = [f"hello {'a b c '[: 2 * (i % 4)]}{i}" for i in range(20)]
    expected = embed(replicas[0][0], texts)
    before = [counted(replica) for replica, _ in replicas]
    for i in range(40):
        found = embed(url, [f"world {i}", *texts])
        np.testing.assert_allclose(found[1:], expected, atol=1e-6)
    after = [counted(replica) for replica, _ in replicas]
    assert all(then > now for now, then in zip(before, after, strict=True))
    replicas[0][1].kill()
    for _ in range(10):
        np.testing.assert_allclose(embed(url, texts), expected, atol=1e-6)


def test_large_requests_pass_and_what_is_of_one_replica_does_not(url: str) -> None:
    body = {"model": "tiny", "input": ["hello"] * 2, "user": "x" * (3 << 20)}
    assert httpx2.post(f"{url}/v1/embeddings", json=body, timeout=30).status_code == 200
    assert httpx2.get(f"{url}/ready").json() == {"status": "ready"}
    for path in ("/", "/metrics", "/dashboard", "/v1/instances", "/state"):
        assert httpx2.get(url + path).status_code == 404
