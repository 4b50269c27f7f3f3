"""`embedsvc search` and `embedsvc similarity` as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.cli import main
from tests.support.embed_command import embed
from tests.support.fake_server import FakeServer, vector_of

Search = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def search(capsys: pytest.CaptureFixture[str]) -> Search:
    def search(*arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["search", *arguments, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return search


@pytest.mark.parametrize("output", ["out.parquet", "out.jsonl", "out.npy"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_text_finds_itself(
    embed_folder: Path, search: Search, fake: FakeServer, output: str, dtype: str
) -> None:
    options = ("--dtype", dtype, "--id-column", "key", "--keep", "n", "--url", fake.url)
    assert embed("--output", output, *options) == 0
    hits = search(output, "b c", "-k", "3", "--url", fake.url)
    assert len(hits) == 3
    assert hits[0] == {"score": hits[0]["score"], "id": "k28", "text": "b c", "n": 28}
    assert hits[0]["score"] > 0.999
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]


def test_documents_are_searched_with_the_prompt_of_queries(
    served: TestClient, search: Search
) -> None:
    assert embed("--output", "out.npy", "--input-type", "document") == 0
    body = {"model": "tiny:query", "input": "b c"}
    query = np.array(served.post("/v1/embeddings", json=body).json()["data"][0]["embedding"])
    scores = np.load("out.npy") @ query
    hits = search("out.npy", "b c", "-k", "64")
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert embed("--output", "plain.npy") == 0
    assert search("plain.npy", "b c")[0]["score"] == pytest.approx(1, abs=1e-5)


def test_an_index_with_a_prompt_of_its_own_wants_one_for_the_query(
    embed_folder: Path, search: Search, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--url", fake.url)
    assert embed("--output", "out.npy", "--prompt", "e f ", *options) == 0
    assert main(["search", "out.npy", "b c", *options]) == 6
    assert "was made with --prompt 'e f '" in capsys.readouterr().err
    assert search("out.npy", "b c", "--prompt", "e f ", *options)[0]["score"] > 0.999
    assert search("out.npy", "e f b c", "--prompt", "", *options)[0]["score"] > 0.999
    assert search("out.npy", "b c", "--prompt", "", *options)[0]["score"] < 0.999


def test_another_model_is_refused_with_both_names(
    embed_folder: Path, search: Search, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed("--output", "out.npy") == 0
    assert main(["search", "out.npy", "b c", "--model", "other"]) == 6
    assert "out.npy was made by `tiny`, and this is `other`" in capsys.readouterr().err
    assert main(["search", "out.npy", "b c", "--url", fake.url]) == 6
    assert "out.npy was made by `tiny`, and this is `fake`" in capsys.readouterr().err
    assert search("out.npy", "b c", "--model", "alias")[0]["score"] > 0.999
    cards = embed_folder / "models.toml"
    text = cards.read_text()
    cards.write_text(
        text.replace("models.tiny", "models.was").replace("models.other", "models.tiny")
    )
    assert main(["search", "out.npy", "b c"]) == 6
    said = capsys.readouterr().err
    assert "out.npy was made by `tiny`, and this is another model of that name" in said


def test_hits_are_shown_to_people_one_a_line(
    embed_folder: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed("--output", "out.npy", "--id-column", "key", "--url", fake.url) == 0
    capsys.readouterr()
    assert main(["search", "out.npy", "b c", "-k", "2", "--url", fake.url]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == " 1.0000  k28  b c"
    assert second.startswith(" 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("none.npy", "x"), 6, "none.npy is not there"),
        (("models.toml", "x"), 6, "an output's name ends in"),
        (("out.npy", "x", "-k", "0"), 3, "-k must be at least 1"),
        (("out.npy", "hello " * 99), 6, "the query: Invalid 'input': maximum context length"),
    ],
)
def test_searches_that_cannot_be(
    embed_folder: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert embed("--output", "out.npy") == 0
    assert main(["search", *arguments]) == code
    assert said in capsys.readouterr().err


def test_similarity_is_that_of_the_server_s_vectors(
    served: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["hello world", "a b c", "hello"]
    capsys.readouterr()
    assert main(["similarity", *texts, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    answer = served.post("/v1/embeddings", json={"model": "tiny", "input": texts}).json()
    vectors = np.array([row["embedding"] for row in answer["data"]])
    assert (told["model"], told["texts"]) == ("tiny", texts)
    np.testing.assert_allclose(told["cosines"], vectors @ vectors.T, atol=2e-6)
    assert main(["similarity", *texts]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1", "2", "3"]
    assert lines[1].startswith("  1.000")
    assert lines[3].endswith("  1.000  3 hello")


def test_similarity_of_the_lines_of_a_file(
    embed_folder: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (embed_folder / "lines.txt").write_text("".join(f"text {i}\n\n" for i in range(100)))
    options = ["--lines", "lines.txt", "--url", fake.url, "--input-type", "query", "--json"]
    assert main(["similarity", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    vectors = np.array([vector_of(f"text {i}") for i in range(100)])
    np.testing.assert_allclose(told["cosines"], vectors @ vectors.T, atol=2e-6)
    assert {request["input_type"] for request in fake.requests} == {"query"}
    for wrong in (["one"], ["one", ""], ["--lines", "none.txt"]):
        assert main(["similarity", *wrong]) == 6
