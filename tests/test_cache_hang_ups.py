"""Callers of a cache who hang up: what only they wait for is called off, and nothing else."""

import asyncio
from collections.abc import Callable
from typing import Literal

import pytest

from embedsvc.serving.cache import Cache
from tests.support.fake_device import Device, batcher, turns
from tests.support.fake_model import Model, ask, cache, run, vectors


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
