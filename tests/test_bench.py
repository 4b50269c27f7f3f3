"""`embedsvc bench` against a real server, and against one that answers wrongly."""

import base64
import json
import random
from collections.abc import Iterator

import numpy as np
import pytest

from embedsvc.bench.texts import RANKING_SHAPES, TWO_TOKENS, Shape, ask_for_scores
from embedsvc.cli import main
from tests.support.http_server import HttpServer, QuietHandler
from tests.support.server import serving


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("--cache-bytes", "0") as (url, _):
        yield f"{url}/v1"


def bench(url: str, *options: str) -> int:
    return main(["bench", "--url", url, "--seconds", "0.3", "--warm-up", "0.1", *options])


def test_a_line_of_json_for_each_shape(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--shapes", "single,2x5,bulk,open:20", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["shape"] for row in rows] == ["single", "2x5", "bulk", "open:20"]
    for row in rows:
        assert row["model"] == "all-MiniLM-L6-v2"
        assert row["errors"] == row["wrong"] == {}
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        texts = {"bulk": 32, "2x5": 5}.get(row["shape"], 1)
        assert row["texts_per_second"] == pytest.approx(texts * row["requests_per_second"])
        # Texts of 12 words are about 16 tokens, by the server's own count.
        assert 14 <= row["tokens_per_second"] / row["texts_per_second"] <= 18


def test_a_table_for_people(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--model", "text-embedding-3-small", "--shapes", "single") == 0
    title, headings, line = capsys.readouterr().out.splitlines()
    assert title.endswith("384 dimensions")
    assert headings.split()[0] == "shape"
    assert line.startswith("single")
    assert line.endswith("none")


def test_a_server_that_ranks_is_measured_too(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", "all-MiniLM-L6-v2")
    assert bench(server, "--task", "rerank", *model, "--shapes", "2x5", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["shape"], row["errors"], row["wrong"]) == ("2x5", {}, {})
    assert row["texts_per_second"] == pytest.approx(5 * row["requests_per_second"])
    assert bench(server, "--task", "rerank", *model, "--shapes", "single") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("/v1: scores")


@pytest.mark.parametrize("shape", RANKING_SHAPES.values(), ids=RANKING_SHAPES)
def test_pairs_have_as_many_tokens_as_is_said(shape: Shape) -> None:
    body, tokens = ask_for_scores(random.Random(1), shape)
    assert len(body["documents"]) == shape.texts
    counted = 0
    for document in body["documents"]:
        words = f"{body['query']} {document}".replace(".", " .").split()
        counted += 3 + len(words) + sum(word in TWO_TOKENS for word in words)
    assert counted == tokens
    assert shape.tokens is None or tokens > shape.texts * shape.tokens


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--shapes", "nothing"), 3, "no shape nothing"),
        (("--shapes", "open:nan"), 3, "no shape open:nan"),
        (("--shapes", "open:0"), 3, "no shape open:0"),
        (("--shapes", "0x5"), 3, "no shape 0x5"),
        (("--shapes", "99999x1"), 3, "no shape 99999x1: there are single, "),
        (("--sweeps", "nothing"), 3, "no sweep nothing: there are clients, texts, tokens"),
        (("--seconds", "-1"), 3, "--seconds and --warm-up are at most 86400"),
        (("--warm-up", "99999999"), 3, "--seconds and --warm-up are at most 86400"),
        (("--model", "other"), 1, "no vector from the server: 404"),
        (("--model", "other", "--task", "rerank"), 1, "no score from the server: 404"),
    ],
)
def test_what_cannot_be_measured_is_said(
    server: str,
    options: tuple[str, ...],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench(server, *options) == code
    assert message in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said_to_be_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("http://127.0.0.1:9/v1") == 1
    assert "nothing answers at 127.0.0.1:9" in capsys.readouterr().err
    assert bench("https://127.0.0.1:9/v1") == 3
    assert "--url must be like http://" in capsys.readouterr().err


class Wrong(QuietHandler):
    """Answers vectors whose length is not 1, and documents in the wrong order."""

    def post(self) -> None:
        sent = json.loads(self.body())
        if "query" in sent:
            count = len(sent["documents"])
            results = [{"index": i, "relevance_score": i} for i in range(count)]
            self.answer(200, json.dumps({"results": results}).encode())
            return
        vector = base64.b64encode(np.ones(4, dtype="<f4").tobytes()).decode()
        self.answer(200, json.dumps({"data": [{"index": 0, "embedding": vector}]}).encode())


def test_wrong_vectors_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with HttpServer(Wrong) as wrong:
        assert bench(f"{wrong.url}/v1", "--model", "m", "--shapes", "single") == 1
    assert "not of length 1" in capsys.readouterr().out


def test_wrong_orders_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with HttpServer(Wrong) as wrong:
        options = ("--model", "m", "--task", "rerank", "--shapes", "1x3")
        assert bench(f"{wrong.url}/v1", *options) == 1
    assert "not the best first" in capsys.readouterr().out
