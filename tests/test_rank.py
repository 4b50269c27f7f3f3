"""`embedsvc rerank`, and `embedsvc search --rerank`, as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.bulk import rank
from embedsvc.cli import main
from tests.support.app import serve
from tests.support.fake_server import FakeServer, refusal
from tests.support.rerankers import DOCUMENTS, best_first, logits, sigmoid, write_models

Run = Callable[..., list[dict[str, Any]]]
TEXTS = [text for text in DOCUMENTS if text]
QUERY = "hello"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: tiny models, and texts in two files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDSVC_BACKEND", "numpy")
    write_models(tmp_path)
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS) + "\n")
    rows = [{"key": f"k{i}", "body": text} for i, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command, and reads its lines of JSON."""

    def run(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def expected(folder: Path) -> np.ndarray:
    """The scores that a server gives the texts."""
    with serve(models=folder / "models.toml") as client:
        return sigmoid(logits(client, QUERY, TEXTS))


def test_texts_come_in_the_order_of_the_server_s_scores(
    folder: Path, run: Run, expected: np.ndarray
) -> None:
    order = best_first(expected)
    found = run("rerank", QUERY, "lines.txt")  # by the first model that reranks
    assert [hit["text"] for hit in found] == [TEXTS[i] for i in order]
    assert [hit["id"] for hit in found] == [i + 1 for i in order]
    assert np.abs([hit["score"] for hit in found] - expected[order]).max() < 1e-5
    same = run("rerank", QUERY, "rows.jsonl", "--column", "body", "--id-column", "key", "-k", "2")
    assert [hit["id"] for hit in same] == [f"k{i}" for i in order[:2]]
    assert [hit["score"] for hit in same] == [hit["score"] for hit in found[:2]]


def test_a_model_of_vectors_ranks_too(folder: Path, run: Run) -> None:
    found = run("rerank", TEXTS[1], "lines.txt", "--model", "embed")
    assert found[0] == {"score": pytest.approx(1, abs=1e-5), "id": 2, "text": TEXTS[1]}


def test_what_is_read_may_be_long_or_nothing(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run("rerank", QUERY, "lines.txt")
    monkeypatch.setattr(rank, "TEXTS", 2)
    assert run("rerank", QUERY, "lines.txt") == found
    Path("lines.txt").write_text("")
    assert run("rerank", QUERY, "lines.txt") == []


def test_a_row_without_a_text_is_left_out_and_told(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.jsonl").write_text('{"text": "a b"}\n{"text": 7}\n{"text": "b"}\n')
    assert len(run("rerank", QUERY, "rows.jsonl", code=1)) == 2
    assert main(["rerank", QUERY, "rows.jsonl"]) == 1
    said = capsys.readouterr()
    assert "rows.jsonl:2: left out: `text` is a number, not text" in said.err
    assert said.out.splitlines()[0].split(maxsplit=1)[1] in ("1  a b", "3  b")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("", "lines.txt"), 6, "the query is empty"),
        ((QUERY, "none.txt"), 6, "none.txt: No such file"),
        ((QUERY, "lines.txt", "-k", "0"), 3, "-k must be at least 1"),
        ((QUERY, "lines.txt", "--model", "sorter"), 6, "scores for 3 labels, not one"),
        ((QUERY, "lines.txt", "--model", "nobody"), 3, "`nobody` is neither the name of a card"),
    ],
)
def test_what_cannot_be_ranked(
    folder: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rerank", *arguments]) == code
    assert said in capsys.readouterr().err


def answer(*scores: float, **extra: Any) -> tuple[int, dict[str, str], bytes]:
    """The answer of a server that reranks, the best first."""
    results = [{"index": i, "relevance_score": scores[i]} for i in best_first(scores)]
    return 200, {}, json.dumps({"results": results} | extra).encode()


def test_a_server_is_asked_for_the_scores(folder: Path, run: Run, fake: FakeServer) -> None:
    fake.script.append(answer(0.1, 0.4, 0.2, 0.3))
    found = run("rerank", QUERY, "lines.txt", "--url", fake.url, "--model", "m")
    assert [hit["text"] for hit in found] == [TEXTS[i] for i in (1, 3, 2, 0)]
    fake.script.append(answer(0.1, 0.4, 0.2, 0.3))
    assert run("rerank", QUERY, "lines.txt", "--url", fake.url) == found
    first, second = fake.requests
    assert first == {"model": "m", "query": QUERY, "documents": TEXTS}
    assert second == {"query": QUERY, "documents": TEXTS}  # it knows which model reranks


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (answer(0.1, 0.2), "no scores: 2 results for 4 documents, or not one of each"),
        ((200, {}, b'{"results": [{"index": 0}]}'), "no scores: "),
        ((200, {}, b"<html>"), "no scores: "),
        (refusal(400, "Too long."), "Too long."),
    ],
)
def test_an_answer_without_all_scores_is_an_error(
    folder: Path,
    fake: FakeServer,
    wrong: tuple[int, dict[str, str], bytes],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.script.append(wrong)
    assert main(["rerank", QUERY, "lines.txt", "--url", fake.url]) == 6
    assert said in capsys.readouterr().err


def test_a_search_is_reranked(
    folder: Path, run: Run, expected: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "lines.txt", "--output", "out.npy", "--model", "embed"]) == 0
    plain = {hit["text"]: hit["score"] for hit in run("search", "out.npy", QUERY)}
    found = run("search", "out.npy", QUERY, "--rerank", "ranker", "-k", "3")
    order = best_first(expected)[:3]
    assert [hit["text"] for hit in found] == [TEXTS[i] for i in order]
    assert np.abs([hit["score"] for hit in found] - expected[order]).max() < 1e-5
    assert all(hit["cosine"] == plain[hit["text"]] for hit in found)
    nearest = max(plain, key=plain.__getitem__)
    (one,) = run("search", "out.npy", QUERY, "--rerank", "ranker", "-k", "1", "--candidates", "1")
    assert one["text"] == nearest
    assert main(["search", "out.npy", QUERY, "--rerank", "sorter"]) == 6
    assert "--rerank sorter: Model `sorter` gives scores for 3 labels" in capsys.readouterr().err
    assert main(["search", "out.npy", QUERY, "--candidates", "0"]) == 3
