"""`/v1/activity`: what happens every second is read once, however many watch."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from embedsvc.serving.metrics import Metrics
from embedsvc.web.admin import activity
from embedsvc.web.admin.activity import Now, Pulse
from tests.support.tiny_registry import open_registry, write_cards


def test_however_many_watch_it_is_read_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path)
    read, reads = activity.snapshot, 0

    def counted(metrics: Metrics) -> object:
        nonlocal reads
        reads += 1
        return read(metrics)

    monkeypatch.setattr(activity, "snapshot", counted)
    monkeypatch.setattr(activity, "SECONDS", 0.001)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            metrics = Metrics()
            metrics.registry = registry
            pulse = Pulse(metrics, registry)

            async def watch(beats: int) -> list[bytes]:
                events = pulse.events()
                told = [await anext(events) for _ in range(beats)]
                await events.aclose()  # type: ignore[attr-defined]
                return told

            told = await asyncio.gather(*(watch(4) for _ in range(50)))
            assert {len(events) for events in told} == {4}
            assert len({tuple(events) for events in told}) == 1
            first, second, *_ = (msgspec.json.decode(event, type=Now) for event in told[0])
            assert first.activity is None
            assert second.activity is not None
            assert reads == 4
            assert pulse._beating is None  # nobody watches any more
            assert len(await watch(2)) == 2
            assert reads == 6

    asyncio.run(main())


def test_who_does_not_read_has_nothing_kept_for_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path)
    monkeypatch.setattr(activity, "SECONDS", 0.0)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            metrics = Metrics()
            metrics.registry = registry
            pulse = Pulse(metrics, registry)
            slow, quick = pulse.events(), pulse.events()
            await anext(slow)
            for _ in range(100):
                last = await anext(quick)
            now = msgspec.json.decode(await anext(slow), type=Now)
            assert now.activity is not None
            assert now.activity.seconds <= msgspec.json.decode(last, type=Now).activity.seconds + 1
            await slow.aclose()  # type: ignore[attr-defined]
            await quick.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())
