"""What a cache remembers: results of texts that were seen before, and those that were used last."""

from collections import OrderedDict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.serving.memory_cache import ENTRY_BYTES, MemoryCache
from embedsvc.texts.item import Item
from tests.support.fake_device import embed
from tests.support.fake_model import DIMENSIONS, Model, ask, cache, run, text, vectors


def test_a_text_seen_before_is_not_computed_again() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model)
        assert (await ask(asked, 1, 2)).tolist() == vectors(1, 2)
        assert (await ask(asked, 2, 3, 1)).tolist() == vectors(2, 3, 1)
        assert model.computed == [[1, 2], [3]]
        assert (asked.hits, asked.joined, asked.misses) == (2, 0, 3)

    run(scenario)


def test_results_are_told_apart_by_head_types_and_spans() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model)
        ids = text(1)
        types, spans = np.array([0, 0, 1], np.int32), ((0, 2), (2, 3))
        items = [Item(ids), Item(ids, types), Item(ids, spans=spans), Item(ids, types, spans)]
        items.append(Item(ids, 1 - types))
        for _ in range(2):
            for head in ("vector", "scores"):
                await asked.get(items, head)
        assert model.computed == [[1] * len(items)] * 2

    run(scenario)


def test_texts_are_told_apart_by_all_their_tokens() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model)
        texts = [text(1, length) for length in (1, 2, 3, 300)]
        texts.append(texts[-1].copy())
        texts[-1][-1] = 2
        for _ in range(2):
            answer = await embed(asked, texts)
            assert answer[:, 1].tolist() == [1, 2, 3, 300, 300]
        assert model.computed == [[1] * 5]

    run(scenario)


def test_an_answer_is_the_callers_own_to_change() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model)
        for _ in range(3):
            answer = await ask(asked, 1, 1)
            assert answer.dtype == np.float32
            assert answer.tolist() == vectors(1, 1)
            answer[0] = 99
            assert answer[1].tolist() == vectors(1)[0]

    run(scenario)


def test_with_no_bytes_nothing_is_remembered() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model, max_bytes=0)
        for _ in range(2):
            assert (await ask(asked, 1)).tolist() == vectors(1)
        assert model.computed == [[1], [1]]
        assert asked.memory.bytes == asked.memory.entries == 0

    run(scenario)


def test_what_was_used_last_is_kept() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model, max_bytes=2 * (ENTRY_BYTES + 4 * DIMENSIONS))
        for value in (1, 2, 1, 3, 1, 2):
            await ask(asked, value)
        assert model.computed == [[1], [2], [3], [2]]
        assert (asked.memory.entries, asked.memory.evictions) == (2, 2)

    run(scenario)


@given(st.integers(0, 5000), st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_memory_keeps_what_was_used_last_within_its_bytes(
    max_bytes: int, uses: list[tuple[bool, int]]
) -> None:
    memory = MemoryCache(max_bytes)
    kept: OrderedDict[int, int] = OrderedDict()  # entry to size, by last use
    evictions = 0
    for put, i in uses:
        size = ENTRY_BYTES + 100 * i
        if put:
            memory.put(b"%d" % i, bytes(100 * i))
            if size <= max_bytes:
                kept.pop(i, None)
                kept[i] = size
                while sum(kept.values()) > max_bytes:
                    kept.popitem(last=False)
                    evictions += 1
        else:
            assert memory.get(b"%d" % i) == (bytes(100 * i) if i in kept else None)
            if i in kept:
                kept.move_to_end(i)
        assert memory.bytes == sum(kept.values()) <= max_bytes
        assert memory.entries == len(kept)
        assert memory.evictions == evictions
