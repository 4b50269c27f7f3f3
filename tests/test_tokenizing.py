"""The threads that tokenise: who waits for whom."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsvc.serving.ad_hoc import find_or_make_card
from embedsvc.texts.pieces import PIECE
from embedsvc.texts.steps import Steps
from embedsvc.texts.threads import Tokenizing
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.tiny_registry import open_registry, write_cards

LONG = PIECE + 1


def steps(note: Callable[[int], object], count: int) -> Steps[int]:
    for number in range(count):
        note(number)
        yield
    return count


def run(main: Callable[[Tokenizing], object]) -> None:
    async def opened() -> None:
        tokenizing = Tokenizing()
        try:
            await main(tokenizing)
        finally:
            tokenizing.close()

    asyncio.run(opened())


def test_a_short_request_passes_one_that_is_long() -> None:
    async def main(tokenizing: Tokenizing) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def wait(_: int) -> None:
            begun.set()
            go_on.wait()

        long = asyncio.create_task(tokenizing.run(steps(wait, 2), LONG))
        await asyncio.to_thread(begun.wait)
        assert await tokenizing.run(steps(lambda _: None, 1), PIECE) == 1
        assert not long.done()
        go_on.set()
        assert await long == 2

    run(main)


def test_long_requests_take_turns() -> None:
    async def main(tokenizing: Tokenizing) -> None:
        done: list[str] = []
        works = [
            tokenizing.run(steps(lambda _, name=name: done.append(name), 20), LONG) for name in "ab"
        ]
        await asyncio.gather(*works)
        assert "".join(done).count("ab") >= 19

    run(main)


def test_who_is_gone_has_no_further_step_done() -> None:
    async def main(tokenizing: Tokenizing) -> None:
        done: list[int] = []
        begun, go_on = threading.Event(), threading.Event()

        def note(number: int) -> None:
            done.append(number)
            begun.set()
            go_on.wait()

        work = asyncio.create_task(tokenizing.run(steps(note, 5), LONG))
        await asyncio.to_thread(begun.wait)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        go_on.set()
        await tokenizing.run(steps(lambda _: None, 1), LONG)  # behind whatever was asked for
        assert done == [0]

    run(main)


def test_what_fails_fails_its_own_request_alone() -> None:
    async def main(tokenizing: Tokenizing) -> None:
        def fail(_: int) -> None:
            raise BaseExceptionGroup("worse than an Exception", [KeyboardInterrupt()])

        with pytest.raises(BaseExceptionGroup):
            await tokenizing.run(steps(fail, 1), LONG)
        assert await tokenizing.run(steps(lambda _: None, 1), LONG) == 1

    run(main)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of those that tokenise, in turn."""
    names: list[str] = []
    encode = Tokenizer._encode

    def noted(self, *args, **options):
        names.append(threading.current_thread().name)
        return encode(self, *args, **options)

    monkeypatch.setattr(Tokenizer, "_encode", noted)
    return names


def test_a_model_that_a_client_chose_never_tokenises_on_the_event_loop(
    tmp_path: Path, threads: list[str]
) -> None:
    write_cards(tmp_path, "a")

    async def main() -> None:
        async with open_registry(tmp_path, allow_ad_hoc=True) as registry:
            await registry.embed("a")
            assert threads == [threading.current_thread().name]
            chosen = await find_or_make_card(registry, "./tiny")
            await registry.embed(chosen.id)
            assert len(threads) == 2
            assert threads[1].startswith("tokenize-ad-hoc")

    asyncio.run(main())


def test_a_tokeniser_that_was_slow_does_not_run_on_the_event_loop_again(
    tmp_path: Path, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path, "a")
    now = 0.0

    def a_second_later() -> float:
        nonlocal now
        now += 1
        return now

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            await registry.embed("a")
            await registry.embed("a", "b")
            with monkeypatch.context() as slow:
                slow.setattr("embedsvc.serving.engine.time.perf_counter", a_second_later)
                await registry.embed("a", "c")
            await registry.embed("a", "d")

    asyncio.run(main())
    assert threads[:3] == [threading.main_thread().name] * 3
    assert threads[3].startswith("tokenize")
