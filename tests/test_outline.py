"""Outlines of models: figures from files that strangers wrote."""

import asyncio
import doctest
from pathlib import Path

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.errors import CheckpointError
from embedsvc.serving import outline
from embedsvc.serving.outline import Outline, Outlines, outline_from
from tests.support.tiny_registry import open_registry, write_cards


def test_the_examples_are_right() -> None:
    failed, tried = doctest.testmod(outline)
    assert tried
    assert not failed


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"n_layers": 6, "dim": 768}, {"layers": 6, "hidden_size": 768}),
        ({"n_layer": 12, "n_embd": 768, "n_positions": 8192}, {"max_tokens": 8192}),
        ({"num_hidden_layers": 28, "num_key_value_heads": 8}, {"key_value_heads": 8}),
        ({"quantization": {"bits": 4, "group_size": 64}}, {"quantization": "4bit"}),
        ({"quantization": {"mode": "mxfp4", "bits": 4}}, {"quantization": "mxfp4"}),
    ],
)
def test_figures_are_found_under_the_names_that_converters_give_them(
    config: dict, wanted: dict
) -> None:
    found = outline_from(config, 7)._asdict()
    assert found | wanted == found


@pytest.mark.parametrize("wrong", [0, -1, 1 << 40, "6", True, None, [6]])
def test_what_is_no_figure_is_not_taken_for_one(wrong: object) -> None:
    config = {"num_hidden_layers": wrong, "hidden_size": wrong, "model_type": wrong}
    config |= {"quantization": {"bits": "4", "mode": 4}}
    assert outline_from(config, 7)._replace(model_type="") == Outline(stored=7, size=7)


def test_an_outline_is_looked_up_once_until_the_card_means_other_files() -> None:
    asked: list[str] = []

    async def look_up(card: Card, *, ask_hub: bool) -> Outline:
        asked.append(card.id)
        if not ask_hub:
            raise CheckpointError("not here")
        return Outline(stored=len(asked))

    async def main() -> None:
        outlines = Outlines(look_up)
        card = Card(id="a", repo="org/a")
        with pytest.raises(CheckpointError):
            await outlines.find(card)
        assert outlines.known(card) is None
        assert await outlines.find(card, ask_hub=True) == await outlines.find(card)
        assert outlines.known(Card(id="a", repo="org/a", aliases=("b",))) == Outline(stored=2)
        assert outlines.known(Card(id="a", repo="org/other")) is None
        for number in range(outline.KEPT):
            outlines.keep(Card(id=str(number), repo="org/x"), Outline())
        assert outlines.known(card) is None
        assert asked == ["a", "a"]

    asyncio.run(main())


def test_an_instance_has_its_outline_before_it_is_ready(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            before = await registry.outlines.find(registry.named("a"))
            instance = await registry.load("a")
            assert instance.outline == before == registry.outlines.known(registry.named("a"))
            assert before.size == size == instance.size
            assert before.layers == 2

    asyncio.run(main())
