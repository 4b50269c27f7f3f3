"""Several heads of one pass: what they give, and what is computed of which text."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import joined, parts_of, sections
from embedsvc.inference.ops.base import Ops
from embedsvc.serving.cache import Cache
from embedsvc.serving.joint import compute_wants
from embedsvc.texts.item import Item
from tests.support.fake_model import disk, text
from tests.support.tiny import CASES
from tests.support.tolerance import within


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_heads_of_one_pass_give_what_each_gives_alone(ops: Ops, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    checkpoint = open_checkpoint(Card(id=name, path=case.write(tmp_path), pooling="mean"))
    encoder = load_encoder(ops, checkpoint)
    items = [Item(ids, spans=((0, len(ids)), (len(ids) - 1, len(ids)))) for ids in case.texts()]
    both = joined(["vector", "spans"])
    for batch in (items, items[::-1], items[3:4]):
        for result, item in zip(encoder.run(batch, both), batch, strict=True):
            together = dict(zip(parts_of(both), sections.split(result, 2), strict=True))
            for head, part in together.items():
                (alone,) = encoder.run([item], head)
                found, expected = (np.frombuffer(each, "<f4") for each in (part, alone))
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() <= within(1e-5, ops)


class Heads:
    """A model with heads `a`, `b` and `c`, which notes what it computes."""

    def __init__(self) -> None:
        self.computed: list[tuple[str, list[int]]] = []
        self.fails = ""

    async def compute(self, items: list[Item], head: str) -> list[bytes]:
        values = [int(item.ids[0]) for item in items]
        self.computed.append((head, values))
        await asyncio.sleep(0)
        if head == self.fails:
            raise EmbeddingFailed("This one fails.")
        names = parts_of(head)
        parts = [[f"{name}{value}".encode() for name in names] for value in values]
        return [each[0] if len(names) == 1 else sections.join(each) for each in parts]


def items(*values: int) -> list[Item]:
    return [Item(text(value)) for value in values]


def test_each_text_is_computed_once_by_the_heads_that_are_not_known_of_it() -> None:
    async def scenario() -> None:
        model = Heads()
        cache = Cache(model.compute, max_bytes=2**20)
        assert await cache.get(items(1, 2), "a") == [b"a1", b"a2"]
        found = await cache.get_joined(items(2, 3, 1, 3), ("b", "a"))
        assert found == [[b"b2", b"b3", b"b1", b"b3"], [b"a2", b"a3", b"a1", b"a3"]]
        assert sorted(model.computed[1:]) == [("a+b", [3]), ("b", [2, 1])]
        assert await cache.get_joined(items(3, 1), ("a", "b")) == [[b"a3", b"a1"], [b"b3", b"b1"]]
        assert (len(model.computed), cache.misses) == (3, 6)

    asyncio.run(scenario())


def test_what_is_on_disk_is_not_computed_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Heads()
        before = Cache(model.compute, max_bytes=2**20, disk=disk(tmp_path))
        await before.get(items(1, 2), "c")
        await before.close()
        after = Cache(model.compute, max_bytes=2**20, disk=disk(tmp_path))
        found = await after.get_joined(items(1, 2, 3), ("a", "c"))
        assert found == [[b"a1", b"a2", b"a3"], [b"c1", b"c2", b"c3"]]
        assert sorted(model.computed[1:]) == [("a", [1, 2]), ("a+c", [3])]
        await after.close()

    asyncio.run(scenario())


def test_what_two_calls_ask_for_at_once_is_computed_once() -> None:
    async def scenario() -> None:
        model = Heads()
        cache = Cache(model.compute, max_bytes=0)
        first, second = await asyncio.gather(
            cache.get_joined(items(1), ("a", "b")), cache.get_joined(items(1), ("b", "c"))
        )
        assert (first, second) == ([[b"a1"], [b"b1"]], [[b"b1"], [b"c1"]])
        assert sorted(model.computed) == [("a+b", [1]), ("c", [1])]

    asyncio.run(scenario())


def test_a_failure_of_one_part_fails_the_call_and_ends_the_other_parts() -> None:
    async def scenario() -> None:
        model = Heads()
        model.fails = "a+b"
        one, two = items(1, 2)
        with pytest.raises(EmbeddingFailed, match="This one fails"):
            await compute_wants(model.compute, [(one, "a"), (two, "a"), (two, "b")])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
