"""Scores of pairs by whatever model is asked: a classifier's outputs, or cosines of vectors."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from embedsvc.catalog.cards import Card, Cards
from embedsvc.checkpoints.scoring import Scoring
from embedsvc.errors import BadRequest
from embedsvc.serving.engine import Engine
from embedsvc.serving.registry import Registry, open_registry
from embedsvc.serving.score_request import Scores, score_request
from embedsvc.settings import Settings
from embedsvc.texts.requests import PairFields, ScoringRequest
from tests.support.checkpoints import write_bert
from tests.support.classifiers import CLASSIFIERS

DOCUMENTS = ["a b", "hello world", "", "world " * 200]


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Cards:
    folder = tmp_path_factory.mktemp("cards")
    prompts = {"query": "hello ", "document": "world "}
    found = [
        Card(id="scorer", path=CLASSIFIERS["bert-scores"].write(folder / "scorer")),
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


# --- classifiers ---------------------------------------------------------------------------------


def test_scores_are_the_same_alone_and_together(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        together = await score(registry, "scorer")
        assert (together.kind, together.logits.shape) == ("scores", (4, 3))
        assert together.scoring.labels == ("no", "maybe", "yes")
        assert together.truncated == 1
        assert together.tokens == (3 + 1) * 4 + 2 + 2 + 0 + 60
        for index, document in enumerate(DOCUMENTS):
            alone = await score(registry, "scorer", documents=[document])
            assert np.abs(alone.logits - together.logits[index]).max() < 1e-5

    run(cards, main, cache_bytes=0)


def test_a_pair_is_computed_once_and_is_not_its_reverse(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        first = await score(registry, "scorer", query="a", documents=["b"])
        again = await score(registry, "scorer", query="a", documents=["b"])
        async with registry.use("scorer") as engine:
            assert engine.cache.hits == 1
        other = await score(registry, "scorer", query="b", documents=["a"])
        alone = await score(registry, "scorer", query=None, documents=["a b"])
        assert first.logits.tolist() == again.logits.tolist()
        assert first.logits.tolist() != other.logits.tolist() != alone.logits.tolist()

    run(cards, main)


def test_queries_go_with_documents_one_by_one(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        zipped = await score(registry, "scorer", query=["a", None], documents=["b", "c"])
        pair = await score(registry, "scorer", query="a", documents=["b"])
        text = await score(registry, "scorer", query=None, documents=["c"])
        assert np.allclose(zipped.logits, np.concatenate([pair.logits, text.logits]), atol=1e-5)
        fields = PairFields("text_1", "text_2")
        with pytest.raises(BadRequest, match="'text_1': expected one text, or one for each of the"):
            await score(registry, "scorer", query=["a"] * 3, fields=fields)

    run(cards, main)


def test_a_client_that_hangs_up_takes_its_pairs_along(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        async with registry.use("scorer") as engine:
            batcher = engine.batcher
            texts = [f"hello {'a' * n}" for n in range(500)]
            asked = asyncio.create_task(score(registry, "scorer", documents=texts))
            while not batcher.waiting_tokens:  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
            assert batcher.waiting_tokens == 0

    run(cards, main)


def test_too_many_pairs_and_an_unknown_wish_are_refused(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        with pytest.raises(BadRequest, match="max 50 tokens per request"):
            await score(registry, "scorer")
        with pytest.raises(BadRequest, match="'instruction': model `scorer` takes no instruction"):
            await score(registry, "scorer", instruction="x")
        with pytest.raises(BadRequest, match="max 50 tokens"):  # none is as good as empty
            await score(registry, "scorer", instruction="")
        with pytest.raises(BadRequest, match="'truncate': expected error, end or start"):
            await score(registry, "scorer", truncate="chunk")
        with pytest.raises(BadRequest, match=r"'documents\[3\]'.*scored all the same"):
            await score(registry, "scorer", truncate="error")

    run(cards, main, max_pair_tokens=50)


def test_the_setting_says_what_becomes_of_long_pairs(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        with pytest.raises(BadRequest, match=r"'documents\[3\]'"):
            await score(registry, "scorer")
        assert (await score(registry, "scorer", truncate="start")).truncated == 1

    run(cards, main, truncate="error")
    run(cards, lambda registry: score(registry, "scorer"), truncate="chunk")


# --- what scores mean ----------------------------------------------------------------------------


def scores(logits: list[list[float]], scoring: Scoring) -> Scores:
    return Scores(np.array(logits, np.float32), "scores", scoring, "x", tokens=0)


def test_documents_are_ranked_by_the_logit_though_sigmoids_are_equal() -> None:
    found = scores([[23], [40], [-900], [41], [23]], Scoring(("one",), "sigmoid"))
    assert found.ranking() == [3, 1, 0, 4, 2]
    probabilities = found.probabilities()[:, 0]
    assert probabilities.max() <= 1
    assert probabilities.min() == 0
    assert 1 - 1e-9 < scores([[23]], Scoring(("one",), "identity")).probabilities()[0, 0] < 1


def test_several_labels_have_a_softmax_or_each_its_sigmoid() -> None:
    logits = [[0.0, 1.0, -1000.0]]
    found = scores(logits, Scoring(("a", "b", "c"), "identity"))
    assert np.allclose(found.probabilities(), [[0.26894142, 0.73105858, 0]])
    assert found.predictions().tolist() == logits
    each = scores(logits, Scoring(("a", "b", "c"), "identity", multi_label=True))
    assert np.allclose(each.probabilities(), [[0.5, 0.73105858, 0]])
    with pytest.raises(BadRequest, match="`x` gives scores for 3 labels"):
        found.ranking()


def test_what_a_model_does_is_known_from_its_card_and_then_from_its_files(cards: Cards) -> None:
    async def main(registry: Registry) -> None:
        card = registry.cards.by_id["scorer"]
        assert registry.tasks(card) == ("embed",)
        engine: Engine
        async with registry.use("scorer") as engine:
            assert engine.checkpoint.task == "classify"
        assert registry.tasks(card) == ("classify",)

    run(cards, main)
