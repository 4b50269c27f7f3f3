"""Activations, on every backend, against what transformers makes of the same numbers.

`tests/reference/activations.py` recorded that.
"""

from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.models.activations import NAMES, HiddenAct, read_activation
from embedsvc.inference.ops.activations import Activation, Name
from embedsvc.inference.ops.base import Batch, Ops, columns
from embedsvc.inference.ops.mlx.activations import FACTORS, FUNCTIONS
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.tape import FOLDED, Tape, trace
from embedsvc.inference.ops.numpy import activations
from tests.support.tolerance import within

SPELLINGS: tuple[HiddenAct, ...] = get_args(HiddenAct)
LEARNED = {"prelu": ("weight",), "xielu": ("alpha_p", "alpha_n", "beta", "eps")}


@cache
def recorded() -> dict[str, NDArray[Any]]:
    with np.load(Path(__file__).parent / "reference" / "activations.npz") as arrays:
        return dict(arrays)


def read(name: HiddenAct, folder: Path) -> Activation:
    """The activation, with what transformers begins with in place of what is learned."""
    tensors = {f"act.{part}": recorded()[f"{name}/{part}"] for part in LEARNED.get(name, ())}
    save_file(tensors, folder / "model.safetensors")
    return read_activation(Tensors("x", folder), name, "act")


def result(ops: Ops, activation: Activation, *, gated: bool = False) -> NDArray[np.float32]:
    """What a pass makes of the recorded numbers, which are columns of a text of one token.

    If `gated`, they are multiplied with 3, from columns beside them.
    """
    numbers = recorded()["numbers"]
    both = np.concatenate([numbers, np.full_like(numbers, 3)])[None]
    table = ops.table(both)

    def run(ops: Ops, batch: Batch) -> Any:
        x, gate = columns(ops.embedding(table, batch.ids), len(numbers), len(numbers))
        out = ops.activate(x, activation)
        return ops.copy(ops.multiply(out, gate) if gated else out)

    batch = ops.batch([np.zeros(1, np.int32)])
    return ops.to_numpy(ops.compiled(run)(batch))[0]


def test_every_activation_of_transformers_is_known() -> None:
    names = {name for name in recorded() if name != "numbers" and "/" not in name}
    assert set(SPELLINGS) == set(NAMES) == names
    every = set(get_args(Name))
    assert set(NAMES.values()) == every - {"log1p_relu"}  # that of sparse vectors
    assert set(activations.FREQUENT) | set(activations.FUNCTIONS) == every
    assert set(FACTORS) | set(FUNCTIONS) == every


@pytest.mark.parametrize("name", SPELLINGS)
def test_numbers_become_what_transformers_makes_of_them(
    ops: Ops, name: HiddenAct, tmp_path: Path
) -> None:
    expected, activation = recorded()[name], read(name, tmp_path)
    scale = np.maximum(1, np.abs(expected))
    found = result(ops, activation)
    assert (np.abs(found - expected) / scale).max() <= within(1e-6, ops)
    found = result(ops, activation, gated=True)
    assert (np.abs(found - 3 * expected) / scale).max() <= within(3e-6, ops)


@pytest.mark.parametrize("name", SPELLINGS)
def test_an_activation_follows_a_product(ops: Ops, name: HiddenAct, tmp_path: Path) -> None:
    """Kernels in C apply some of them as part of the product, and others after it."""
    activation, random = read(name, tmp_path), np.random.default_rng(3)
    x, weight, bias = random.normal(size=(5, 7)), random.normal(size=(37, 7)) / 7, np.ones(37)
    table, layer = ops.table(x), ops.linear_layer(weight, bias)

    def run(ops: Ops, batch: Batch) -> Any:
        return ops.activate(ops.linear(ops.embedding(table, batch.ids), layer), activation)

    batch = ops.batch([np.arange(5, dtype=np.int32)])
    found = ops.split(ops.to_numpy(ops.compiled(run)(batch)), batch.layout)[0]
    product = (x @ weight.T + bias).astype(np.float32)
    assert np.abs(found - activations.activate(product, activation)).max() <= within(5e-6, ops)


@pytest.mark.parametrize("name", get_args(Name))
def test_no_activation_is_a_reason_to_leave_the_kernels(name: Name) -> None:
    def run(ops: Any, batch: Batch) -> Any:
        x = ops.linear(ops.embedding(np.ones((1, 4), np.float32), batch.ids), layer)
        return ops.activate(x, Activation(name, (0.5,) * 4))

    layer = NativeOps(1).linear_layer(np.ones((4, 4)), None)
    tape, _ = trace(run, Tape())
    assert [step.operation for step in tape.steps][:2] == ["embedding", "linear"]


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "mish", "quick_gelu", "relu", "silu"])
def test_what_is_not_finite_shows(ops: Ops, name: Name) -> None:
    x = ops.table(np.array([[np.nan, np.inf, -np.inf]], np.float32))

    def run(ops: Ops, batch: Batch) -> Any:
        return ops.activate(ops.embedding(x, batch.ids), Activation(name))

    with np.errstate(invalid="ignore"):
        found = ops.to_numpy(ops.compiled(run)(ops.batch([np.zeros(1, np.int32)])))[0]
    assert not np.isfinite(found).any()


def test_products_apply_those_that_the_tape_hands_to_them() -> None:
    first = library.load().declared.activations[: 1 + len(FOLDED)]
    assert first == ("none", *FOLDED)
    assert set(library.load().declared.activations) <= {"none", *get_args(Name)}


def test_what_was_learned_has_to_be_there(tmp_path: Path) -> None:
    save_file({"other": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"`act\.weight` is missing"):
        read_activation(Tensors("x", tmp_path), "prelu", "act")
