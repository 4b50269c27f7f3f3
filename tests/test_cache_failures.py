"""Computations that fail, under a cache: each failure reaches those at fault, and is not kept."""

import pytest

from embedsvc.serving.cache import LONGER, Cache
from embedsvc.texts.item import Item
from tests.support.fake_device import embed, result, turns
from tests.support.fake_model import Failure, Model, ask, cache, run, text, vectors


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
