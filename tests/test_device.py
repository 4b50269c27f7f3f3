"""Which backend runs: MLX where it has a GPU, else the processor; an error rather than a guess."""

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.errors import CardsError
from embedsvc.inference import device, gpu
from embedsvc.inference.device import Device, open_device
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.serving.loader import Loader
from embedsvc.settings import Settings
from tests.support import tiny_registry
from tests.support.checkpoints import write_bert
from tests.support.tiny import CASES


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU's driver."""
    monkeypatch.setattr(device, "gpu_likely", lambda: True)


def backend(opened: Device) -> str:
    opened.close()
    return opened.ops.name


def test_without_a_driver_the_processor_computes_and_mlx_is_not_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(gpu, "_loads", lambda _: False)
    monkeypatch.setitem(sys.modules, "embedsvc.inference.ops.mlx", None)  # importing it is an error
    assert backend(open_device("auto")) in ("native", "numpy")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_with_a_gpu_mlx_runs(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(gpu, "_loads", lambda library: library == "libcuda.so.1")
    monkeypatch.setattr("embedsvc.inference.ops.mlx.has_gpu", lambda: True)
    monkeypatch.setattr(
        "embedsvc.inference.ops.mlx.MlxOps", lambda _: SimpleNamespace(name="mlx", dtypes=())
    )
    assert backend(open_device("auto")) == "mlx"


@pytest.mark.usefixtures("driver")
def test_with_a_driver_and_no_gpu_for_mlx_the_processor_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("embedsvc.inference.ops.mlx.has_gpu", lambda: False)
    assert backend(open_device("auto")) in ("native", "numpy")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("choice", ["auto", "mlx"])
def test_an_mlx_that_cannot_be_loaded_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, choice: device.BackendChoice
) -> None:
    monkeypatch.setitem(sys.modules, "embedsvc.inference.ops.mlx", None)
    with pytest.raises(CardsError, match=r"cannot be loaded: .*ops.mlx.*--backend numpy"):
        open_device(choice)


def test_numpy_runs_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embedsvc.inference.ops.mlx", None)
    assert backend(open_device("numpy")) == "numpy"


class Ops(NumpyOps):
    """Operations with dtypes of the test's choice, the default first."""

    def __init__(self, dtypes: tuple[Dtype, ...], dtype: Dtype | None) -> None:
        super().__init__()
        self.dtypes, self.dtype = dtypes, dtype or dtypes[0]


GPU, CPU, NUMPY = (
    ("float16", "bfloat16", "float32"),
    ("float32", "bfloat16", "int8"),
    ("float32",),
)


@pytest.mark.parametrize(
    ("dtypes", "of_server", "of_card", "config", "expected"),
    [
        (GPU, None, None, {}, "float16"),
        (GPU, None, None, {"torch_dtype": "float32"}, "float16"),
        (GPU, None, None, {"torch_dtype": "bfloat16"}, "bfloat16"),
        (GPU, None, None, {"dtype": "bfloat16"}, "bfloat16"),
        (GPU, None, "float16", {"dtype": "bfloat16"}, "float16"),
        (GPU, None, "float32", {"dtype": "bfloat16"}, "float32"),
        (GPU, None, None, {"dtype": ["bfloat16"]}, "float16"),
        (GPU, "float32", None, {"dtype": "bfloat16"}, "float32"),
        (GPU, "int8", "int8", {"dtype": "bfloat16"}, "bfloat16"),
        (CPU, None, None, {"dtype": "bfloat16"}, "float32"),
        (CPU, None, "bfloat16", {}, "bfloat16"),
        (CPU, "int8", None, {}, "int8"),
        (CPU, "int8", "bfloat16", {}, "bfloat16"),
        (CPU, "int8", "float16", {}, "int8"),
        (CPU, "float16", "float16", {}, "float32"),
        (NUMPY, "int8", "bfloat16", {"dtype": "bfloat16"}, "float32"),
    ],
)
def test_a_checkpoint_is_computed_in_what_the_card_or_the_server_says_where_that_can_be(
    tmp_path: Path,
    dtypes: tuple[Dtype, ...],
    of_server: Dtype | None,
    of_card: Dtype | None,
    config: dict[str, Any],
    expected: Dtype,
) -> None:
    card = Card(id="a", path=write_bert(tmp_path / "a", **config), dtype=of_card)
    opened = Device(lambda asked: Ops(dtypes, asked), workers=1, dtype=of_server)
    assert opened.dtype(open_checkpoint(card)) == expected
    assert opened.ops.dtype == (of_server if of_server in dtypes else dtypes[0])
    opened.close()


def test_weights_in_bfloat16_are_computed_in_it_and_so_is_what_exceeds_float16(
    tmp_path: Path,
) -> None:
    first = open_checkpoint(Card(id="a", path=write_bert(tmp_path / "a")))
    convert(first, tmp_path / "b", Precision("bfloat16"))
    stored = open_checkpoint(Card(id="b", path=tmp_path / "b"))
    exceeds = open_checkpoint(Card(id="c", path=CASES["gemma3_text"].write(tmp_path / "c")))
    opened = Device(lambda asked: Ops(GPU, asked), workers=1)
    assert opened.dtype(first) == "float16"
    assert opened.dtype(stored) == opened.dtype(exceeds) == "bfloat16"
    opened.close()


def test_a_model_is_loaded_in_its_dtype_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Device(lambda dtype: MlxOps(dtype or "float16"), workers=1, one_thread=True)
    monkeypatch.setattr(tiny_registry, "Device", lambda *_, **__: gpu)
    write_bert(tmp_path / "tiny", torch_dtype="bfloat16")
    tiny_registry.write_cards(tmp_path, "ab", b="dtype = 'float16'")

    async def main() -> None:
        async with tiny_registry.open_registry(tmp_path) as registry:
            for name, dtype in (("a", "bfloat16"), ("b", "float16")):
                vectors = await registry.embed(name)
                assert np.isfinite(vectors).all()
                known = registry.description(registry.named(name))
                assert known is not None
                assert known.dtype == dtype

    asyncio.run(main())


def test_the_thread_of_mlx_frees_what_is_its_own_before_it_ends() -> None:
    done: list[tuple[str, int]] = []

    def note(what: str) -> None:
        done.append((what, threading.get_ident()))

    opened = Device(lambda _: NumpyOps(), workers=1, one_thread=True, leave=lambda: note("left"))
    asyncio.run(asyncio.wait_for(_run(opened, lambda: note("computed")), 5))
    opened.close()
    (first, thread), (last, same) = done
    assert (first, last) == ("computed", "left")
    assert thread == same != threading.get_ident()


async def _run(opened: Device, work: Callable[[], None]) -> None:
    await opened.run(work)


def test_a_model_in_another_dtype_is_another_to_every_cache(tiny_folder: Path) -> None:
    asked: tuple[Dtype | None, ...] = (None, "float16", "bfloat16", "int8")
    settings = Settings(backend="native", dtype="bfloat16")

    async def main() -> list[tuple[Dtype, str]]:
        opened = open_device(settings.backend, 1, settings.dtype)
        loader, found = Loader(opened, settings), list[tuple[Dtype, str]]()
        for dtype in asked:
            card = Card(id="tiny", path=tiny_folder, dtype=dtype)
            engine = await loader.load(await loader.fetch(card, lambda *_: None, Event()), print)
            found.append((engine.dtype, engine.fingerprint))
            await engine.close()
        loader.close()
        opened.close()
        return found

    found = asyncio.run(main())
    assert [dtype for dtype, _ in found] == ["bfloat16", "bfloat16", "bfloat16", "int8"]
    assert len(set(found)) == len({fingerprint for _, fingerprint in found}) == 2
