"""From requests to vectors of tokens, and to MaxSim."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.catalog.cards import Card, Cards
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.serving.engine import Engine
from embedsvc.serving.registry import open_registry
from embedsvc.serving.score_request import Scores, score_request
from embedsvc.serving.token_request import EmbeddedTokens, embed_tokens
from embedsvc.settings import Settings
from embedsvc.texts.item import Item
from embedsvc.texts.requests import EmbeddingRequest, ScoringRequest
from tests.support.colbert import COLBERTS, DOCUMENTS, QUERIES

RECORDED = Path(__file__).parent / "reference" / "colbert"
LONG = DOCUMENTS[-1]


def use(name: str, folder: Path, work: Callable[[Engine, Card], Any], **settings: Any) -> Any:
    """What some work with a loaded model returns."""
    card = Card(id=name, path=COLBERTS[name].write(folder))
    cards = Cards(folder / "models.toml", {name: card}, {name: card})

    async def run() -> Any:
        async with (
            open_registry(cards, Settings(backend="numpy", **settings)) as registry,
            registry.use(name) as engine,
        ):
            return await work(engine, card)

    return asyncio.run(run())


def embedded(name: str, folder: Path, texts: list[str], **fields: Any) -> EmbeddedTokens:
    request = EmbeddingRequest(model=name, inputs=texts, **fields)
    return use(name, folder, lambda engine, card: embed_tokens(engine, card, None, request))


def scored(
    name: str, folder: Path, query: Any, documents: list[str], settings: Any = None, **fields: Any
) -> Scores:
    request = ScoringRequest(model=name, query=query, documents=documents, **fields)
    return use(
        name, folder, lambda engine, card: score_request(engine, card, request), **settings or {}
    )


@pytest.mark.parametrize("kind", [{"input_type": "query"}, {"prompt_name": "search_query"}])
def test_texts_are_queries_where_a_prompt_for_those_is_named(
    tmp_path: Path, kind: dict[str, str]
) -> None:
    found = embedded("pylate", tmp_path, QUERIES[:2], **kind)
    with np.load(RECORDED / "pylate.npz", allow_pickle=False) as arrays:
        for place, vectors in enumerate(found.vectors):
            assert np.abs(vectors - arrays[f"q{place}"]).max() <= 1e-5


def test_texts_are_documents_where_nothing_says_it(tmp_path: Path) -> None:
    found = embedded("pylate", tmp_path, DOCUMENTS, truncate="end")
    with np.load(RECORDED / "pylate.npz", allow_pickle=False) as arrays:
        for place, vectors in enumerate(found.vectors):
            assert np.abs(vectors - arrays[f"d{place}"]).max() <= 1e-5
    assert found.truncated == 1
    assert found.tokens > sum(map(len, found.vectors)), "punctuation has no vectors"


def test_texts_that_are_too_long_are_refused_where_nothing_says_to_cut_them(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"'input\[1\]': maximum input length is 40 tokens"):
        embedded("pylate", tmp_path, ["hello", LONG])
    with pytest.raises(BadRequest, match="'truncate': expected error, end or start"):
        embedded("pylate", tmp_path / "other", ["hello"], truncate="chunk")


@pytest.mark.parametrize("name", ["pylate", "stanford", "multi-vector"])
def test_scores_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    expected = np.load(RECORDED / f"{name}.npz", allow_pickle=False)["scores"]
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    queries, documents = map(list, zip(*pairs, strict=True))
    scores = scored(name, tmp_path, queries, documents)
    assert scores.kind == "maxsim"
    off = np.abs(scores.logits[:, 0] - expected.reshape(-1)).max()
    assert off <= 1e-3 * np.abs(expected).max()
    # The last query is cut once, and the last document in each of its pairs.
    assert scores.truncated == 1 + len(QUERIES)


def test_many_documents_are_scored_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("embedsvc.serving.token_request.GROUP_TOKENS", 12)
    expected = np.load(RECORDED / "stanford.npz", allow_pickle=False)["scores"][0]
    scores = scored("stanford", tmp_path, QUERIES[0], DOCUMENTS)
    assert np.abs(scores.logits[:, 0] - expected).max() <= 1e-3 * expected.max()


def test_documents_are_kept_in_half_the_memory_of_queries(tmp_path: Path) -> None:
    request = ScoringRequest(model="pylate", query="hello", documents=["hello world"])

    seen: list[tuple[bool, np.dtype]] = []

    async def work(engine: Engine, card: Card) -> tuple[int, int]:
        run = engine.run

        async def noted(head: str, items: Sequence[Item], **options: bool) -> Any:
            found = await run(head, items, **options)
            seen.extend((item.half, each.dtype) for item, each in zip(items, found, strict=True))
            return found

        engine.run = noted
        await score_request(engine, card, request)
        first = engine.cache.misses
        await score_request(engine, card, request)
        return first, engine.cache.hits

    assert use("pylate", tmp_path, work) == (2, 2)
    assert seen == [(False, np.float32), (True, np.float16)] * 2


def test_a_request_has_so_many_tokens_at_most(tmp_path: Path) -> None:
    with pytest.raises(TooManyTokens):
        scored("pylate", tmp_path, "hello", ["hello world"] * 9, {"max_pair_tokens": 40})


def test_a_text_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="'query': model `pylate` compares two texts"):
        scored("pylate", tmp_path, None, ["hello"])


def test_each_query_is_scored_with_its_own_documents(tmp_path: Path) -> None:
    expected = np.load(RECORDED / "pylate.npz", allow_pickle=False)["scores"]
    pairs = [(i % len(QUERIES), j) for j in range(len(DOCUMENTS)) for i in (j, j + 1, j)]
    queries, documents = [QUERIES[i] for i, _ in pairs], [DOCUMENTS[j] for _, j in pairs]
    scores = scored("pylate", tmp_path, queries, documents).logits[:, 0]
    right = np.array([expected[pair] for pair in pairs])
    assert np.abs(scores - right).max() <= 1e-3 * np.abs(expected).max()
