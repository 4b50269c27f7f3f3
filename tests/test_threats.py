"""What docs/threats.md claims is shown by the tests that it names; those that have no better place
are here."""

import ast
import hmac
import json
import os
import pickle
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embedsvc.catalog.ad_hoc import ad_hoc_card
from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.settings import Settings
from embedsvc.web.access import Access
from tests.support.app import serve
from tests.support.checkpoints import CONFIG, write_bert
from tests.support.project import ROOT
from tests.support.server import serving
from tests.support.torch_files import torch_file

PAGE = (ROOT / "docs/threats.md").read_text()


def test_every_threat_has_a_test_that_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    named = re.findall(r"`(tests/\w+\.py)::(\w+)` \|$", PAGE, re.MULTILINE)
    assert len(named) == len(rows) >= 20
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


# --- keys --------------------------------------------------------------------------------------


def test_comparing_a_key_takes_the_same_steps_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = Access(Settings(api_keys=("first-key", "second-key", "third-key")))
    compared: list[tuple[int, int]] = []
    whole = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared[-1] = compared[-1][0] + 1, len(one) + len(other)
        return whole(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for key in ("first-key", "third-key", "first-kex", "x", "first-key" * 100, "é"):
        compared.append((0, 0))
        refused = access.refusal("/v1/models", {b"authorization": b"Bearer " + key.encode()})
        assert (refused is None) == (key in ("first-key", "third-key"))
    assert set(compared) == {(3, 64)}


def test_guesses_are_counted(cards_file: Path) -> None:
    with serve(models=cards_file, api_keys=("right",)) as client:
        for guess in range(5):
            answer = client.get("/v1/models", headers={"api-key": f"guess {guess}"})
            assert answer.status_code == 401
        text = client.get("/metrics", headers={"api-key": "right"}).text
    assert 'embedsvc_refusals_total{reason="unauthorized"} 5.0' in text


# --- bodies ------------------------------------------------------------------------------------

GOOD = json.dumps({"model": "org/tiny", "input": "hello"}).encode()


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 1_000_000,
        b'{"a":' * 300_000 + b"1" + b"}" * 300_000,
        b'{"model": "org/tiny", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "org/tiny", "input": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "org/tiny", "input": [' + b"9" * 1_000_000 + b"]}",
        b'{"model": "org/tiny", "input": "a", "dimensions": 1e' + b"9" * 1_000_000 + b"}",
        b'{"model": "org/tiny", "input": [' + b",".join([b'"a"'] * 3000) + b"]}",
    ],
    ids=["deep", "deep objects", "deep input", "deep unknown", "digits", "exponent", "many"],
)
def test_json_that_is_a_bomb_is_a_400(client: TestClient, bomb: bytes) -> None:
    answer = client.post("/v1/embeddings", content=bomb)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.content) < 1000
    assert client.post("/v1/embeddings", content=GOOD).status_code == 200


# --- names -------------------------------------------------------------------------------------

PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "./tiny",
    "/etc",
    "..",
    "file:///etc/passwd",
    "a/../../b",
]


@pytest.mark.parametrize("name", PATHS)
def test_a_model_s_name_is_never_a_path(client: TestClient, name: str) -> None:
    answer = client.post("/v1/embeddings", json={"model": name, "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    quoted = name.replace("/", "%2F").replace(".", "%2E")
    assert client.get(f"/v1/models/{quoted}").status_code == 404


@pytest.mark.parametrize("name", ["/etc", "./../..", "./..", "/..", "./link", "../x", "a/../b"])
def test_where_models_need_no_card_folders_elsewhere_are_none(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    assert ad_hoc_card(name, root) is None


# --- HTTP --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[str, int]]:
    cards = tmp_path_factory.mktemp("threats") / "models.toml"
    cards.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    with serving("--backend", "numpy", cards=cards) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def answers(address: tuple[str, int], sent: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        data = b""
        while chunk := client.recv(65536):
            data += chunk
        return data


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 0\r\nContent-Length: %d\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\nContent-Length: %d\r\n",
        b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n",
        b"Content-Length: +%d\r\n",
        b"Content-Length : %d\r\n",
    ],
)
def test_a_request_of_doubtful_length_is_refused(address: tuple[str, int], lengths: bytes) -> None:
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n" + lengths % len(SMUGGLED)
    answer = answers(address, head + b"\r\n" + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "trailer", [b"Origin: https://evil.example", b"X-Request-Id: mine", b"Content-Encoding: gzip"]
)
def test_what_comes_behind_a_body_is_no_header(address: tuple[str, int], trailer: bytes) -> None:
    body = b'{"model": "tiny", "input": "a"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    chunks = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer)
    sent = head + b"Connection: close\r\n\r\n" + chunks
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(sent)
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b"x-request-id: req_" in answer


@pytest.mark.parametrize("identity", ["a\x7fb", 'x" y', "a" * 200, "é", "a;b", "<script>"])
def test_nothing_a_client_sends_becomes_a_header_of_another_kind(
    client: TestClient, identity: str
) -> None:
    headers = [(b"x-request-id", identity.encode()), (b"origin", b"http://evil.example")]
    answer = client.get("/v1/models", headers=headers)
    assert answer.headers["x-request-id"].startswith("req_")
    assert "access-control-allow-origin" not in answer.headers
    assert (
        client.get("/v1/models", headers={"x-request-id": "ab-1"}).headers["x-request-id"] == "ab-1"
    )  # what is plain is echoed


# --- checkpoints -------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_nothing_that_could_run_code_is_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    folder = tmp_path / "model"
    code = {"AutoModel": "modeling_evil.Evil", "AutoTokenizer": ["modeling_evil.Evil", None]}
    write_bert(folder, auto_map=code)
    config = json.loads((folder / "config.json").read_text())
    assert config == CONFIG | {"auto_map": code}
    script = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: ...\n"
    (folder / "modeling_evil.py").write_text(script)
    for name in ("pytorch_model.bin", "training_args.bin", "1_Pooling/pytorch_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))

    # With safetensors beside them, they are left alone.
    load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=folder)))
    assert not marker.exists()

    # Alone, they are no weights, in whatever file of torch's they are.
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=folder)))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = torch_file(pickle.dumps({"a": Bomb(marker)}, protocol), [])
        (folder / "pytorch_model.bin").write_bytes(bomb)
        with pytest.raises(CheckpointError, match="holds no plain state dict"):
            load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=folder)))
    (folder / "pytorch_model.bin").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError):
        load_encoder(NumpyOps(), open_checkpoint(Card(id="x", path=folder)))
    assert not marker.exists()


def test_no_code_of_ours_unpickles_evaluates_or_trusts_remote_code() -> None:
    banned = re.compile(
        r"\b(pickle|pickletools|marshal|shelve|eval|exec|trust_remote_code|allow_pickle=True)\b"
    )
    for file in (ROOT / "embedsvc").rglob("*.py"):
        tree = ast.parse(file.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {
            n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names
        }
        names |= {node.arg or "" for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not [name for name in names if banned.fullmatch(name)], file
