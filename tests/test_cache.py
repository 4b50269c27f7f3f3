"""The cache: what is computed, how often, for whom; nobody waits in vain."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import Unavailable
from embedsvc.serving.cache import Cache
from embedsvc.serving.memory_cache import ENTRY_BYTES
from tests.support.fake_device import turns
from tests.support.fake_model import DIMENSIONS, Failure, Model, ask, cache, run, vectors

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
    st.sampled_from([0, 3 * (ENTRY_BYTES + 4 * DIMENSIONS), 2**20]),
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
