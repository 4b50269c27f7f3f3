"""Which backend runs: MLX where it has a GPU, else the processor; an error rather than a guess."""

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.errors import CardsError
from embedsvc.inference import device, gpu
from embedsvc.inference.device import Device, open_device
from embedsvc.inference.ops.numpy import NumpyOps
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
    monkeypatch.setattr("embedsvc.inference.ops.mlx.MlxOps", lambda _: SimpleNamespace(name="mlx"))
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
    """Operations with a dtype of the test's choice."""

    def __init__(self, dtype: Dtype, name: Literal["mlx", "numpy"] = "mlx") -> None:
        super().__init__()
        self.dtype = dtype
        self.name: Any = name


@pytest.mark.parametrize(
    ("default", "name", "asked", "config", "expected"),
    [
        ("float16", "mlx", None, {}, "float16"),
        ("float16", "mlx", None, {"torch_dtype": "float32"}, "float16"),
        ("float16", "mlx", None, {"torch_dtype": "bfloat16"}, "bfloat16"),
        ("float16", "mlx", None, {"dtype": "bfloat16"}, "bfloat16"),
        ("float16", "mlx", "float16", {"dtype": "bfloat16"}, "float16"),
        ("float16", "mlx", "float32", {"dtype": "bfloat16"}, "float32"),
        ("float16", "mlx", None, {"dtype": ["bfloat16"]}, "float16"),
        ("float32", "mlx", None, {"dtype": "bfloat16"}, "float32"),
        ("float32", "mlx", "bfloat16", {}, "bfloat16"),
        ("float32", "numpy", "bfloat16", {"dtype": "bfloat16"}, "float32"),
    ],
)
def test_a_gpu_computes_in_bfloat16_what_was_trained_in_it_unless_the_card_says_otherwise(
    tmp_path: Path,
    default: Dtype,
    name: Literal["mlx", "numpy"],
    asked: Dtype | None,
    config: dict[str, Any],
    expected: Dtype,
) -> None:
    card = Card(id="a", path=write_bert(tmp_path / "a", **config), dtype=asked)
    opened = Device(lambda _: Ops(default, name), workers=1)
    assert opened.dtype(open_checkpoint(card)) == expected
    opened.close()


def test_weights_in_bfloat16_are_computed_in_it_and_so_is_what_exceeds_float16(
    tmp_path: Path,
) -> None:
    first = open_checkpoint(Card(id="a", path=write_bert(tmp_path / "a")))
    convert(first, tmp_path / "b", Precision("bfloat16"))
    stored = open_checkpoint(Card(id="b", path=tmp_path / "b"))
    exceeds = open_checkpoint(Card(id="c", path=CASES["gemma3_text"].write(tmp_path / "c")))
    opened = Device(lambda _: Ops("float16"), workers=1)
    assert opened.dtype(first) == "float16"
    assert opened.dtype(stored) == opened.dtype(exceeds) == "bfloat16"
    opened.close()


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
