"""How often a short text changes threads on its way, and how often somebody waits for the hardware.

Each hand-over costs a lone text tens of microseconds, and more where other threads are busy.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import mlx.core as mx
import numpy as np
import pytest

from embedsvc.inference.device import Device
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.settings import BackendChoice, Settings
from embedsvc.web.app import create_app
from tests.support.tiny_registry import write_cards

TEXT = {"model": "a", "input": "hello world"}


class Counted:
    """Hand-overs from one thread to another, and waits for results, while it counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.handed: list[str] = []
        self.synchronised = 0
        self._patch = monkeypatch

    def begin(self) -> None:
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        submit, back = ThreadPoolExecutor.submit, loop.call_soon_threadsafe

        def counted_submit(threads: Any, *work: Any) -> Any:
            self.handed.append(f"to {threads._thread_name_prefix}")
            return submit(threads, *work)

        def counted_back(*work: Any, **context: Any) -> Any:
            name = threading.current_thread().name
            if threading.get_ident() != here and "watch" not in name:
                self.handed.append(f"from {name.partition('_')[0]}")
            return back(*work, **context)

        self._patch.setattr(ThreadPoolExecutor, "submit", counted_submit)
        self._patch.setattr(loop, "call_soon_threadsafe", counted_back)
        for owner, name in ((mx, "eval"), (mx, "synchronize"), (np, "array")):
            self._count(owner, name, only=mx.array if owner is np else None)
        self._count(NumpyOps, "to_numpy", only=None)  # the kernels' too

    def _count(self, owner: Any, name: str, only: type | None) -> None:
        real = getattr(owner, name)

        def counted(*given: Any, **options: Any) -> Any:
            self.synchronised += only is None or isinstance(given[0], only)
            return real(*given, **options)

        self._patch.setattr(owner, name, counted)


@pytest.mark.parametrize("backend", ["numpy", "native", "mlx", "mlx, pipelined"])
def test_a_short_text_is_handed_over_twice_and_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str
) -> None:
    write_cards(tmp_path, a="preload = true")
    chosen: BackendChoice = backend.partition(",")[0]  # type: ignore[assignment]
    counted = Counted(monkeypatch)

    async def main() -> None:
        app = create_app(Settings(models=tmp_path / "models.toml", backend=chosen, cores=2))
        async with app.router.lifespan_context(app):
            ops: Any = app.state.registry.device.ops
            if "pipelined" in backend:
                ops.pipelined = True
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as web:
                await web.post("/v1/embeddings", json=TEXT | {"input": "warm up"})
                counted.begin()
                answer = await web.post("/v1/embeddings", json=TEXT)
                monkeypatch.undo()
        assert answer.status_code == 200
        assert len(answer.json()["data"][0]["embedding"]) == 16

    asyncio.run(asyncio.wait_for(main(), 20))
    # A result that is there before somebody waits for it is not handed over.
    assert counted.handed in (["to device", "from device"], ["to device"])
    assert counted.synchronised == 1


def test_a_batch_is_begun_while_one_is_collected_and_one_alone_stays_on_its_thread() -> None:
    device = Device(lambda _: NumpyOps(), workers=1, one_thread=True)
    free, second_begun = threading.Event(), threading.Event()
    log: list[str] = []

    def note(what: str) -> str:
        log.append(f"{what} on {threading.current_thread().name.partition('_')[0]}")
        return what

    def collect_first(begun: str) -> str:
        assert second_begun.wait(5), "the second batch is not begun while the first is collected"
        return note("first collected")

    def begin_second() -> str:
        second_begun.set()
        return note("second begun")

    async def main() -> None:
        await device.run_pipelined(lambda: note("alone begun"), lambda _: note("alone collected"))
        held = device.run(lambda: free.wait(5))
        both = [
            asyncio.ensure_future(device.run_pipelined(lambda: note("first begun"), collect_first)),
            asyncio.ensure_future(
                device.run_pipelined(begin_second, lambda _: note("second collected"))
            ),
        ]
        await asyncio.sleep(0)  # both are queued
        free.set()
        assert await asyncio.gather(*both) == ["first collected", "second collected"]
        await held

    asyncio.run(asyncio.wait_for(main(), 10))
    device.close()
    assert log[:3] == [
        "alone begun on device",
        "alone collected on device",
        "first begun on device",
    ]
    assert "first collected on results" in log
    assert {"second begun on device", "second collected on device"} <= set(log)


def test_an_error_in_either_half_reaches_who_waits() -> None:
    device = Device(lambda _: NumpyOps(), workers=1, one_thread=True)

    def fail(_: object = None) -> None:
        raise ValueError("no")

    async def main() -> None:
        with pytest.raises(ValueError, match="no"):
            await device.run_pipelined(fail, lambda begun: begun)
        with pytest.raises(ValueError, match="no"):
            await device.run_pipelined(lambda: None, fail)

    asyncio.run(asyncio.wait_for(main(), 10))
    device.close()
