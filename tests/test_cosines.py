"""Scores of pairs by a model of vectors: cosines, computed in one submission."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from embedsvc.catalog.cards import Card, Cards
from embedsvc.errors import BadRequest, TooManyTokens
from embedsvc.serving.cosines import cosines_of
from embedsvc.serving.registry import Registry, open_registry
from embedsvc.serving.score_request import Scores, score_request
from embedsvc.settings import Settings
from embedsvc.texts.item import Item
from embedsvc.texts.requests import PairFields, ScoringRequest
from embedsvc.texts.truncation import Rule
from tests.support.checkpoints import write_bert

DOCUMENTS = ["a b", "hello world", "", "world " * 200]
FIELDS = PairFields("text_1", "text_2")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Cards:
    folder = tmp_path_factory.mktemp("cards")
    prompts = {"query": "hello ", "document": "world "}
    found = [
        Card(id="vectors", path=write_bert(folder / "vectors"), prompts=prompts),
        Card(id="cutter", path=folder / "vectors", truncate="error"),
    ]
    by_id = {card.id: card for card in found}
    return Cards(folder / "models.toml", by_id, by_id)


def run(cards: Cards, main: Callable[[Registry], Awaitable[None]], **settings: Any) -> None:
    async def opened() -> None:
        settings_ = Settings(backend="numpy", **settings)
        async with asyncio.timeout(20), open_registry(cards, settings_) as registry:
            await main(registry)

    asyncio.run(opened())


async def score(registry: Registry, model: str, **asked: Any) -> Scores:
    request = ScoringRequest(model=model, **{"query": "a", "documents": DOCUMENTS} | asked)
    async with registry.use(model) as engine:
        return await score_request(engine, registry.cards.by_id[model], request)


def test_a_model_of_vectors_gives_cosines_by_its_prompts(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        found = await score(registry, "vectors")
        async with registry.use("vectors") as engine:
            query = (await engine.embed(["hello a"])).vectors
            documents = (await engine.embed([f"world {text}"[:60] for text in DOCUMENTS])).vectors
            hits = engine.cache.hits
            await score(registry, "vectors")
            assert engine.cache.hits == hits + 5
        assert found.kind == "cosine"
        assert np.allclose(found.logits[:3], (documents @ query.T)[:3], atol=1e-6)
        assert found.ranking() == np.argsort(-found.logits[:, 0], kind="stable").tolist()
        assert found.truncated == 1
        plain = await score(registry, "vectors", query_prompt=None, document_prompt=None)
        assert np.abs(plain.logits - found.logits).max() > 1e-4
        same = await score(registry, "vectors", query=["a", "b"], documents=["a", "b"],
                           query_prompt=None, document_prompt=None)  # fmt: skip
        assert np.allclose(same.logits, 1, atol=1e-6)

    run(cards, main)


def test_limits_of_texts_hold_for_cosines(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        limited = await score(registry, "vectors", max_tokens_per_doc=2, max_tokens_per_query=1)
        shorter = await score(registry, "vectors", documents=[*DOCUMENTS[:3], "world world"])
        assert np.allclose(limited.logits, shorter.logits, atol=1e-6)
        assert (limited.truncated, shorter.truncated) == (1, 0)
        with pytest.raises(BadRequest, match=r"'documents\[3\]'"):
            await score(registry, "cutter")
        assert (await score(registry, "cutter", max_tokens_per_doc=3)).truncated == 1
        with pytest.raises(BadRequest, match="'query': model `vectors` compares two texts"):
            await score(registry, "vectors", query=None)

    run(cards, main)


def test_a_ranking_by_cosines_may_be_as_long_as_one_by_scores(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        await score(registry, "vectors", documents=["a b"] * 19)
        with pytest.raises(BadRequest, match="max 100 tokens per request"):
            await score(registry, "vectors", documents=["a b"] * 30)

    run(cards, main, max_request_tokens=50, max_pair_tokens=100)


def test_query_and_documents_are_one_submission(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        card = registry.cards.by_id["vectors"]
        async with registry.use("vectors") as engine:
            asked: list[int] = []
            run_head = engine.run

            def counting(head: str, items: list[Item], **how: bool) -> Awaitable[Any]:
                asked.append(len(items))
                return run_head(head, items, **how)

            engine.run = counting  # type: ignore[method-assign]
            request = ScoringRequest(query="a", documents=DOCUMENTS)
            found = await cosines_of(engine, card, request, Rule("end"))
        assert asked == [1 + len(DOCUMENTS)]
        assert found.tokens == 4 + (5 + 5 + 3 + 32)  # a prompt is a token, and there are two more

    run(cards, main)


def test_errors_name_the_text_by_its_place_in_the_request(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        long = "a " * 100
        for queries, documents, name in (
            (["a", "a", long, "a"], ["b"] * 4, r"'text_1\[2\]'"),
            (["a", "a"], ["b", long], r"'text_2\[1\]'"),
            (long, ["b", "b"], "'text_1'"),
            (["a", None], ["b", "b"], "'text_1': model `cutter` compares two texts"),
        ):
            with pytest.raises(BadRequest, match=name):
                await score(registry, "cutter", query=queries, documents=documents, fields=FIELDS)

    run(cards, main)


def test_pairs_are_counted_of_which_a_text_was_cut(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        long = "a " * 100
        for query, documents, cut in (
            (long, ["a", "b", "c"], 3),
            (long, [long, "b"], 2),
            ("a", [long, "b"], 1),
            ([long, "a", "b"], ["a", long, "c"], 2),
        ):
            found = await score(registry, "vectors", query=query, documents=documents)
            assert found.truncated == cut
        async with registry.use("vectors") as engine:
            assert engine.truncated == 3 + 2 + 1 + 2

    run(cards, main)


def test_all_texts_together_have_so_many_tokens(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        with pytest.raises(TooManyTokens, match="Requested 44 tokens, max 43"):
            await score(registry, "vectors", query=["a b"] * 4, documents=["a b c"] * 4)

    run(cards, main, max_pair_tokens=43)
