"""The cache: what is computed, how often, for whom, and what is kept; nobody waits in vain."""

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedsvc.errors import EmbeddingFailed, Unavailable
from embedsvc.serving.cache import LONGER, Cache
from embedsvc.serving.cache_file import STAMP_SECONDS
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.serving.memory_cache import ENTRY_BYTES, MemoryCache
from embedsvc.texts.item import Item, TokenIds
from tests.support.clock import Clock
from tests.support.fake_device import Device, batcher, embed, result, turns

D = 2


def text(value: int, length: int = 3) -> TokenIds:
    return np.full(length, value, dtype=np.int32)


class Failure(EmbeddingFailed):
    """The failure of a computation, which knows its texts."""

    def __init__(self, texts: list[int]) -> None:
        super().__init__(f"failed on {texts}")
        self.texts = texts


class Model:
    """Computes when told to: a text's vector is its first token and its length."""

    def __init__(self) -> None:
        self.computed: list[list[int]] = []
        """The texts of every computation begun, by their first tokens."""
        self.running: list[tuple[list[int], asyncio.Future[None]]] = []
        self.called_off = 0
        self.at_once = False

    async def compute(self, items: list[Item], head: str) -> list[bytes]:
        values = [int(item.ids[0]) for item in items]
        self.computed.append(values)
        if not self.at_once:
            computation = (values, asyncio.get_running_loop().create_future())
            self.running.append(computation)
            try:
                await computation[1]
            except asyncio.CancelledError:
                self.called_off += 1
                raise
            finally:
                self.running.remove(computation)
        return [result(item) for item in items]

    def finish(self, index: int = 0) -> None:
        _, gate = self.running[index]
        if not gate.done():
            gate.set_result(None)

    def fail(self, index: int = 0) -> None:
        values, gate = self.running[index]
        if not gate.done():
            gate.set_exception(Failure(values))


def cache(model: Model, *, max_bytes: int = 2**20, disk: DiskCache | None = None) -> Cache:
    return Cache(model.compute, max_bytes=max_bytes, disk=disk)


def disk(folder: Path, clock: Clock | None = None) -> DiskCache:
    return DiskCache(folder, "abc", max_bytes=2**30, clock=clock or Clock())


def ask(
    asked: Cache, *values: int, read: bool = True, write: bool = True
) -> asyncio.Task[NDArray[np.float32]]:
    return asyncio.create_task(embed(asked, [text(i) for i in values], read=read, write=write))


def vectors(*values: int) -> list[list[float]]:
    return [[i, 3] for i in values]


def run(scenario: Callable[[Model], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario, which must leave no task behind and no complaint with the event loop."""

    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(10):
            await scenario(Model())
            await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert complaints == []

    asyncio.run(main())


# --- what is remembered --------------------------------------------------------------------------


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
        asked = cache(model, max_bytes=2 * (ENTRY_BYTES + 4 * D))
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


# --- what is in flight ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [0, 2**20])
def test_equal_texts_in_one_call_are_computed_once(max_bytes: int) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model, max_bytes=max_bytes)
        assert (await ask(asked, 1, 2, 1, 1)).tolist() == vectors(1, 2, 1, 1)
        assert model.computed == [[1, 2]]
        assert (asked.joined, asked.misses) == (2, 2)

    run(scenario)


@pytest.mark.parametrize("max_bytes", [0, 2**20])
def test_equal_texts_of_several_calls_are_computed_once(max_bytes: int) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model, max_bytes=max_bytes)
        first = ask(asked, 1, 2)
        second = ask(asked, 3, 2, 1, 4)
        third = ask(asked, 4, 2)
        await turns()
        assert model.computed == [[1, 2], [3, 4]]
        model.finish(1)
        await turns()
        assert not third.done()
        model.finish()
        assert (await first).tolist() == vectors(1, 2)
        assert (await second).tolist() == vectors(3, 2, 1, 4)
        assert (await third).tolist() == vectors(4, 2)
        assert (asked.hits, asked.joined, asked.misses) == (0, 4, 4)

    run(scenario)


def test_a_call_that_is_answered_does_not_wait_for_what_others_have_in_flight() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        first = ask(asked, 1)
        await turns()
        model.finish()
        await first
        slow = ask(asked, 2)
        await turns()
        assert (await ask(asked, 1)).tolist() == vectors(1)
        model.finish()
        await slow

    run(scenario)


# --- callers who hang up -------------------------------------------------------------------------


def test_what_only_one_caller_waits_for_is_called_off_when_it_hangs_up() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leaving = ask(asked, 1, 2)
        await turns()
        leaving.cancel()
        await turns()
        assert leaving.cancelled()
        assert model.called_off == 1
        again = ask(asked, 1)
        await turns()
        model.finish()
        assert (await again).tolist() == vectors(1)
        assert model.computed == [[1, 2], [1]]

    run(scenario)


def test_a_caller_who_hangs_up_frees_its_place_in_the_waiting_line() -> None:
    async def scenario(_: Model) -> None:
        device = Device()
        line = batcher(device)
        asked = Cache(line.submit, max_bytes=2**20)
        running = ask(asked, 0)
        await turns()
        leaving, staying = ask(asked, 1, 2, 3), ask(asked, 4)
        await turns()
        assert line.waiting_tokens == 12
        leaving.cancel()
        await turns()
        assert line.waiting_tokens == 3
        device.gate.set()
        await asyncio.gather(running, staying)
        assert device.sizes == [1, 1]

    run(scenario)


@pytest.mark.parametrize("who", ["leader", "joiner"])
def test_who_still_waits_gets_the_vector_whoever_hangs_up(who: Literal["leader", "joiner"]) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leader, joiner = ask(asked, 1, 2), ask(asked, 2)
        await turns()
        leaving, staying = (leader, joiner) if who == "leader" else (joiner, leader)
        leaving.cancel()
        await turns()
        assert leaving.cancelled()
        assert model.called_off == 0
        model.finish()
        assert (await staying).tolist()[-1] == vectors(2)[0]
        assert model.computed == [[1, 2]]

    run(scenario)


def test_when_the_last_of_several_hangs_up_the_computation_is_called_off() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        callers = [ask(asked, 1, 2), ask(asked, 2), ask(asked, 1)]
        await turns()
        for caller in callers:
            assert model.called_off == 0
            caller.cancel()
            await turns()
        assert model.called_off == 1

    run(scenario)


def test_hanging_up_calls_off_only_what_nobody_else_waits_for() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        other = ask(asked, 1)
        leaving = ask(asked, 1, 2)
        await turns()
        leaving.cancel()
        await turns()
        assert [values for values, _ in model.running] == [[1]]
        model.finish()
        assert (await other).tolist() == vectors(1)

    run(scenario)


def test_what_is_being_called_off_is_not_joined() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leaving = ask(asked, 1)
        await turns()
        leaving.cancel()
        others = [ask(asked, 1) for _ in range(2)]
        await turns()
        model.finish()
        for other in others:
            assert (await other).tolist() == vectors(1)
        assert model.computed == [[1], [1]]
        assert asked.joined == 1  # one of the others, the other

    run(scenario)


@pytest.mark.parametrize("moment", range(6))
def test_hanging_up_at_any_moment_leaves_nothing_running(moment: int) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leaving = ask(asked, 1)
        await turns(moment)
        leaving.cancel()
        await turns()
        assert model.running == []
        assert model.called_off == len(model.computed)

    run(scenario)


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("end", [Model.finish, Model.fail])
def test_hanging_up_at_the_moment_it_ends_disturbs_nobody(
    moment: int, end: Callable[[Model], None]
) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leaving, staying = ask(asked, 1), ask(asked, 1)
        await turns()
        end(model)
        await turns(moment)
        leaving.cancel()
        await turns()
        assert leaving.done()
        if model.running:
            model.finish()  # tried again
        assert (await staying).tolist() == vectors(1)

    run(scenario)


# --- computations that fail ----------------------------------------------------------------------


def test_a_failure_reaches_the_caller_as_it_is_and_is_not_remembered() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        for _ in range(2):
            caller = ask(asked, 1)
            await turns()
            model.fail()
            with pytest.raises(Failure):
                await caller
        assert model.computed == [[1], [1]]

    run(scenario)


def test_who_only_shared_a_text_of_a_call_that_failed_has_it_tried_again() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leader, joiner = ask(asked, 1, 666), ask(asked, 1, 2)
        await turns()
        model.fail()
        with pytest.raises(Failure):
            await leader
        model.finish()
        await turns()
        assert model.computed == [[1, 666], [2], [1]]
        model.finish()
        assert (await joiner).tolist() == vectors(1, 2)

    run(scenario)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_requests_that_share_a_text_only_those_at_fault_fail(order: tuple[int, int]) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        first = ask(asked, 1, 666, 667)
        await turns(1)
        wanted = {1: (1,), 2: (1, 666)}
        callers = {which: ask(asked, *wanted[which]) for which in order}
        await turns()
        model.fail()  # what all three share
        with pytest.raises(Failure):
            await first
        await turns()
        while model.running:
            values, _ = model.running[0]
            model.fail() if 666 in values else model.finish()
            await turns()
        assert (await callers[1]).tolist() == vectors(1)
        with pytest.raises(Failure):
            await callers[2]

    run(scenario)


def test_who_wants_little_does_not_wait_for_a_computation_of_many() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        bulk = ask(asked, *range(LONGER + 1))
        await turns()
        assert model.computed == [list(range(LONGER + 1))]
        one = ask(asked, 7)
        two = ask(asked, 7, 8)
        await turns()
        model.finish(1)
        assert (await one).tolist() == vectors(7)
        assert not two.done()  # half of what it wants is worth waiting for
        assert not bulk.done()
        model.finish()
        assert (await two).tolist() == vectors(7, 8)
        assert (await bulk).tolist() == vectors(*range(LONGER + 1))
        assert model.computed[1:] == [[7]]

    run(scenario)


def test_the_second_failure_is_final_for_all() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        callers = [ask(asked, 666) for _ in range(4)]
        await turns()
        model.fail()
        await turns()
        model.fail()
        for caller in callers:
            with pytest.raises(Failure):
                await caller
        assert model.computed == [[666], [666]]

    run(scenario)


def test_a_call_whose_own_texts_fail_calls_off_the_rest() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leaving = ask(asked, 1)
        failing = ask(asked, 1, 666)
        await turns()
        leaving.cancel()
        await turns()
        assert model.called_off == 0
        model.fail(1)
        with pytest.raises(Failure):
            await failing
        await turns()
        assert model.called_off == 1

    run(scenario)


def test_a_call_whose_computations_all_fail_at_once_fails_once() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        callers = [ask(asked, 1), ask(asked, 1, 2)]
        await turns()
        model.fail(1)
        model.fail(0)
        for caller in callers:
            with pytest.raises(Failure):
                await caller
        assert model.computed == [[1], [2]]

    run(scenario)


def test_a_wrong_number_of_vectors_is_an_error_not_a_wrong_answer() -> None:
    async def scenario(_: Model) -> None:
        async def compute(items: list[Item], head: str) -> list[bytes]:
            return [result(item) for item in [*items, *items]]

        with pytest.raises(ValueError, match="argument"):
            await embed(Cache(compute, max_bytes=0), [text(1)])

    run(scenario)


# --- reading and writing as the request says -----------------------------------------------------


def test_without_reading_a_text_is_computed_anew_and_kept() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        first = ask(asked, 1)
        await turns()
        anew = ask(asked, 1, read=False)
        await turns()
        assert model.computed == [[1], [1]]  # not even shared in flight
        model.finish(1)
        assert (await anew).tolist() == vectors(1)
        assert (await ask(asked, 1)).tolist() == vectors(1)  # kept, though the first still runs
        model.finish()
        await first
        anew = ask(asked, 1, read=False)
        joiner = ask(asked, 1, read=False)
        await turns()
        assert model.computed == [[1]] * 4
        model.finish()
        model.finish(1)
        await asyncio.gather(anew, joiner)

    run(scenario)


def test_what_is_computed_anew_does_not_take_the_place_of_what_was_in_flight() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model, max_bytes=0)
        first = ask(asked, 1)
        anew = ask(asked, 1, read=False)
        joiner = ask(asked, 1)
        await turns()
        model.finish(1)
        await anew
        late = ask(asked, 1)
        await turns()
        model.finish()
        for caller in (first, joiner, late):
            assert (await caller).tolist() == vectors(1)
        assert model.computed == [[1], [1]]

    run(scenario)


def test_without_writing_nothing_is_kept() -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        asked = cache(model)
        assert (await ask(asked, 1, write=False)).tolist() == vectors(1)
        assert asked.memory.entries == 0
        await ask(asked, 1)
        await ask(asked, 1, write=False)
        assert model.computed == [[1], [1]]  # but what others had kept is read

    run(scenario)


def test_of_a_shared_computation_only_what_a_writing_call_asked_for_is_kept() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        private, public = ask(asked, 1, 2, write=False), ask(asked, 2)
        await turns()
        model.finish()
        await asyncio.gather(private, public)
        assert model.computed == [[1, 2]]
        assert asked.memory.entries == 1
        assert (await ask(asked, 2)).tolist() == vectors(2)
        assert model.computed == [[1, 2]]

    run(scenario)


def test_nothing_is_kept_for_a_writing_call_that_hung_up() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leaving, private = ask(asked, 1), ask(asked, 1, write=False)
        await turns()
        leaving.cancel()
        await turns()
        model.finish()
        await private
        assert asked.memory.entries == 0

    run(scenario)


# --- on disk -------------------------------------------------------------------------------------


def test_after_a_restart_vectors_come_from_disk_and_then_from_memory(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        before = cache(model, disk=disk(tmp_path))
        await ask(before, 1, 2)
        await before.close()
        after = cache(model, disk=disk(tmp_path))
        assert (await ask(after, 1, 3, 2)).tolist() == vectors(1, 3, 2)
        assert (await ask(after, 1, 2)).tolist() == vectors(1, 2)
        assert model.computed == [[1, 2], [3]]
        assert (after.hits, after.disk_hits, after.misses) == (2, 2, 1)
        await after.close()

    run(scenario)


def test_the_disk_is_asked_once_for_texts_that_several_calls_want(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        before = cache(model, disk=disk(tmp_path))
        await ask(before, 1)
        await before.close()
        after = cache(model, max_bytes=0, disk=disk(tmp_path))
        for answer in await asyncio.gather(*(ask(after, 1) for _ in range(5))):
            assert answer.tolist() == vectors(1)
        assert (after.disk_hits, after.joined) == (1, 4)
        await after.close()

    run(scenario)


def stamps(folder: Path) -> list[float]:
    """When the file's rows were last used, as it says."""
    with sqlite3.connect(folder / "abc.sqlite") as db:
        used = [used for (used,) in db.execute("SELECT used FROM vectors ORDER BY used")]
    db.close()
    return used


def test_the_disk_learns_what_is_used_from_memory(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        clock = Clock()
        asked = cache(model, disk=disk(tmp_path, clock))
        await ask(asked, 1, 2)
        await ask(asked, 3, write=False)  # has read the disk, so the two are written
        clock.now += 2 * STAMP_SECONDS
        await ask(asked, 1)
        await asked.close()
        assert stamps(tmp_path) == [1_000_000, clock.now]

    run(scenario)


def test_what_is_found_on_disk_is_not_written_again(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        clock = Clock()
        for _ in range(2):
            asked = cache(model, disk=disk(tmp_path, clock))
            await ask(asked, 1, 2)
            await asked.close()
            clock.now += 1
        assert stamps(tmp_path) == [1_000_000, 1_000_000]

    run(scenario)


def test_what_may_not_be_written_or_read_is_not_on_disk_either(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        before = cache(model, disk=disk(tmp_path))
        await ask(before, 1, write=False)
        await ask(before, 2)
        await before.close()
        after = cache(model, disk=disk(tmp_path))
        await ask(after, 2, read=False)
        await ask(after, 1)
        assert model.computed == [[1], [2], [2], [1]]
        assert after.disk_hits == 0
        await after.close()

    run(scenario)


def test_a_disk_that_fails_costs_no_answer(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        (tmp_path / "folder").write_text("a file where the folder should be")
        asked = cache(model, disk=disk(tmp_path / "folder"))
        for _ in range(2):
            assert (await ask(asked, 1, 2)).tolist() == vectors(1, 2)
        assert model.computed == [[1, 2]]
        await asked.close()

    run(scenario)


def test_hanging_up_while_the_disk_is_read_computes_nothing(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model, disk=disk(tmp_path))
        leaving = ask(asked, 1)
        await turns(2)  # its computation waits for the disk's thread
        leaving.cancel()
        await asked.close()
        assert leaving.cancelled()
        assert model.computed == []

    run(scenario)


# --- the end -------------------------------------------------------------------------------------


def test_closing_lets_what_flies_land_and_refuses_what_comes() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        caller = ask(asked, 1)
        await turns()
        closing = asyncio.create_task(asked.close())
        await turns()
        with pytest.raises(Unavailable):
            await ask(asked, 2)
        assert not closing.done()
        model.finish()
        await closing
        assert (await caller).tolist() == vectors(1)

    run(scenario)


def test_closing_does_not_try_again_what_failed() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        leader, joiner = ask(asked, 1), ask(asked, 1)
        await turns()
        closing = asyncio.create_task(asked.close())
        await turns()
        model.fail()
        await closing
        with pytest.raises(Failure):
            await leader
        with pytest.raises(Unavailable):
            await joiner
        assert model.computed == [[1]]

    run(scenario)


def test_closing_in_a_hurry_calls_off_what_flies_and_tells_its_callers() -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model)
        callers = [ask(asked, 1), ask(asked, 1)]
        await turns()
        closing = asyncio.create_task(asked.close())
        await turns()
        closing.cancel()
        for caller in callers:
            with pytest.raises(Unavailable):
                await caller
        assert model.called_off == 1

    run(scenario)


# --- all of it at once ---------------------------------------------------------------------------


class Caller:
    """A call, and whether its answer was right."""

    def __init__(self, asked: Cache, values: Sequence[int], read: bool, write: bool) -> None:
        self.values = values
        self.task = ask(asked, *values, read=read, write=write)

    def check(self) -> None:
        if self.task.cancelled():
            return
        error = self.task.exception()
        if error is None:
            assert self.task.result().tolist() == vectors(*self.values)
        else:
            assert isinstance(error, Failure)
            assert set(error.texts) & set(self.values)


asks = st.tuples(st.just("ask"), st.lists(st.integers(0, 4), min_size=1, max_size=4), st.booleans())
others = st.tuples(
    st.sampled_from(["finish", "finish", "fail", "hang up", "wait", "look"]),
    st.integers(0, 9),
    st.just(True),
)


@given(
    st.lists(asks | others, max_size=40),
    st.sampled_from([0, 3 * (ENTRY_BYTES + 4 * D), 2**20]),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_whatever_happens_nobody_is_forgotten_and_nothing_runs_for_nobody(
    steps: list[tuple[str, Any, bool]], max_bytes: int, read_always: bool
) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model, max_bytes=max_bytes)
        callers: list[Caller] = []

        def waiting() -> list[Caller]:
            return [caller for caller in callers if not caller.task.done()]

        def look() -> None:
            """What holds whenever nothing is about to happen."""
            running = [values for values, _ in model.running]
            for values in running:
                assert any(set(values) & set(caller.values) for caller in waiting())
            for caller in waiting():
                assert any(set(values) & set(caller.values) for values in running)
            if read_always:
                in_flight = [value for values in running for value in values]
                assert len(in_flight) == len(set(in_flight))
            assert asked.memory.bytes <= max_bytes

        for step, argument, write in steps:
            if step == "ask":
                read = read_always or argument[0] > 1
                callers.append(Caller(asked, argument, read, write))
            elif step == "finish" and model.running:
                model.finish(argument % len(model.running))
            elif step == "fail" and model.running:
                model.fail(argument % len(model.running))
            elif step == "hang up" and (able := waiting()):
                able[int(argument) % len(able)].task.cancel()
            elif step == "wait":
                await turns(argument % 4)
            elif step == "look":
                await turns(8)
                look()
        await turns(8)
        look()
        while waiting():
            model.finish()
            await turns(8)
        for caller in callers:
            caller.check()
        assert model.running == []
        await asked.close()

    run(scenario)
