"""What C refuses to run: tapes that break a rule, batches that leave their tables."""

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedsvc.errors import CheckpointError, EmbeddingFailed
from embedsvc.inference.ops.base import Attention, Batch, columns
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.encoding import Encoded
from embedsvc.inference.ops.native.program import Program
from embedsvc.inference.ops.native.tape import FOLDED
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.ops.numpy.layout import PackedLayout
from tests.support.passes import EXPERTS, ROWS, WIDTH, batch, everything

DECLARED = library.load().declared
OPERATIONS = DECLARED.operations
PANEL = library.load().kernels[0].panel


@pytest.fixture(scope="module")
def ops() -> NativeOps:
    return NativeOps(2)


@pytest.fixture(scope="module")
def traced(ops: NativeOps) -> Encoded:
    return ops.trace(everything(ops))


def with_field(traced: Encoded, at: int, name: str, value: Any) -> Encoded:
    tape = traced.tape.copy()
    operand, _, part = name.partition(".")
    if part:
        tape[operand][part][at] = value
    else:
        tape[name][at] = value
    return replace(traced, tape=tape)


def test_a_pass_of_every_operation_is_taken(ops: NativeOps, traced: Encoded) -> None:
    used = {OPERATIONS[int(number)] for number in traced.tape["operation"]}
    assert used == set(OPERATIONS)
    assert np.isfinite(ops.program(traced).run(batch(1, 3, 9))).all()


HOSTILE: dict[str, list[tuple[str, Any]]] = {
    "embedding": [("rows", 0), ("rows", -1), ("rows", ROWS + 1), ("rows", 2**62), ("weight", 0)],
    "embedding_bfloat16": [
        *(("rows", 0), ("rows", ROWS + 1), ("rows", 2**62), ("words", 0), ("width", WIDTH - 1)),
        *(("words_size", ROWS * WIDTH // 2 - 1), ("source", 9), ("out.buffer", -1)),
    ],
    "copy": [("x.buffer", -1), ("x.column", 1), ("x.column", -1), ("width", WIDTH + 1)],
    "add": [("y.buffer", 10**6), ("width", 0), ("width", -5), ("width", 2**40)],
    "multiply": [("y.buffer", -1), ("y.column", 1), ("y.column", 2**62)],
    "linear": [
        *(("inputs", 0), ("inputs", 2**62), ("weight_size", 10), ("bias_size", 10)),
        *(("activation", len(FOLDED) + 1), ("activation", -1), ("weight", 0), ("x.column", 17)),
    ],
    "linear_bfloat16": [
        *(("inputs", 0), ("inputs", 2**62), ("inputs", WIDTH + 1), ("words_size", 16 * PANEL - 1)),
        *(
            ("activation", len(FOLDED) + 1),
            ("words", 0),
            ("x.column", 1),
            ("bias_size", 7),
            ("width", 2**40),
        ),
    ],
    "linear_int8": [
        *(("inputs", 0), ("inputs", 2**62), ("inputs", WIDTH + 1), ("words_size", 16 * PANEL - 1)),
        *(("scales", 0), ("scales_size", PANEL - 1), ("words", 0), ("out.buffer", -1)),
    ],
    "embedding_quantized": [
        *(("rows", 0), ("rows", ROWS + 1), ("rows", 2**62), ("words", 0), ("scales", 0)),
        *(("words_size", ROWS - 1), ("scales_size", 2 * ROWS - 1), ("width", WIDTH - 1)),
        *(("bits", 0), ("bits", 3), ("bits", 8), ("group", 0), ("group", 7), ("group", 16)),
        *(("group", -8), ("source", 9), ("out.buffer", -1)),
    ],
    "linear_quantized": [
        *(("inputs", 0), ("inputs", 2**62), ("inputs", WIDTH + 1), ("words_size", PANEL - 1)),
        *(("scales", 0), ("scales_size", 2 * PANEL - 1), ("words", 0), ("out.buffer", -1)),
        *(("bits", 0), ("bits", 3), ("bits", 8), ("group", 0), ("group", 7), ("group", 2**62)),
        *(("activation", -1), ("x.column", 1), ("bias_size", 7), ("width", 2**40)),
    ],
    "layer_norm": [("weight", 0), ("weight_size", WIDTH - 1), ("bias_size", WIDTH - 1)],
    "rms_norm": [("size", 0), ("size", -4), ("size", 3), ("weight_size", 3), ("weight", 0)],
    "activation": [("activation", 99), ("out.buffer", -1)],
    "prelu": [("weight", 0), ("weight_size", 0), ("width", 2**40)],
    "xielu": [("weight", 0), ("weight_size", 3), ("out.column", 1)],
    "rope": [
        *(("rotated", 3), ("rotated", 0), ("rotated", 6), ("heads", 3), ("heads", 2**61)),
        *(("rows", ROWS + 1), ("size", 0), ("source", 0), ("source", 2), ("source", 3)),
    ],
    "experts": [
        *(("chosen", 0), ("chosen", EXPERTS + 1), ("experts", EXPERTS + 1), ("experts", 0)),
        *(("inner", 0), ("inner", 1000), ("weight_size", 7), ("down_size", 7), ("weight", 0)),
        ("down", 0),
    ],
    "attention": [
        *(("heads", 0), ("heads", 3), ("kv_heads", 0), ("kv_heads", 3), ("kv_heads", -2)),
        *(("size", 0), ("size", 2**62), ("reach", 0), ("reach", ROWS + 1), ("reach", 2**62)),
        *(("window", -2), ("window", 2**62), ("bias_size", 3), ("z.column", 17)),
    ],
    "attention_bfloat16": [
        *(("heads", 0), ("kv_heads", 3), ("size", 2**62), ("reach", ROWS + 1), ("bias_size", 3)),
        *(("window", -2), ("y.column", 17), ("z.buffer", -1), ("out.buffer", -1)),
    ],
    "pool_max": [("x.buffer", -1), ("width", WIDTH + 1), ("x.column", 3)],
}


@pytest.mark.parametrize(
    ("operation", "name", "value"),
    [(operation, name, value) for operation, all_ in HOSTILE.items() for name, value in all_],
)
def test_an_instruction_that_would_leave_its_memory_is_refused(
    ops: NativeOps, traced: Encoded, operation: str, name: str, value: Any
) -> None:
    at = list(traced.tape["operation"]).index(OPERATIONS.index(operation))
    field, _, part = name.partition(".")
    assert (traced.tape[field][part] if part else traced.tape[field])[at] != value
    with pytest.raises(CheckpointError, match=rf"step {at + 1} of the pass, {operation}, cannot"):
        ops.program(with_field(traced, at, name, value))


@pytest.mark.parametrize("number", [-1, len(OPERATIONS), 2**62])
def test_an_operation_that_there_is_none_of_is_refused(
    ops: NativeOps, traced: Encoded, number: int
) -> None:
    tape = traced.tape.copy()
    tape["operation"][0] = number
    with pytest.raises(CheckpointError, match="operation"):
        ops.program(replace(traced, tape=tape))


def test_operands_are_rows_of_the_right_kind_that_were_written(
    ops: NativeOps, traced: Encoded
) -> None:
    for kind in range(3):
        buffers = traced.buffers.copy()
        buffers["kind"] = kind
        with pytest.raises(CheckpointError):
            ops.program(replace(traced, buffers=buffers))
    with pytest.raises(CheckpointError):  # without the first instruction its rows are never written
        ops.program(replace(traced, tape=traced.tape[1:]))
    linear = list(traced.tape["operation"]).index(OPERATIONS.index("linear"))
    tape = traced.tape.copy()
    tape["out"]["buffer"][linear] = tape["x"]["buffer"][linear]
    with pytest.raises(CheckpointError):  # what an instruction reads while it writes it
        ops.program(replace(traced, tape=tape))


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("width", 2**40), ("kind", 3), ("kind", -1)]
)
def test_a_buffer_that_cannot_be_is_refused(
    ops: NativeOps, traced: Encoded, name: str, value: int
) -> None:
    buffers = traced.buffers.copy()
    buffers[name][0] = value
    with pytest.raises(CheckpointError, match="buffers"):
        ops.program(replace(traced, buffers=buffers))


@pytest.mark.parametrize("result", [-1, 1000, 2**62])
def test_a_result_that_is_no_buffer_is_refused(
    ops: NativeOps, traced: Encoded, result: int
) -> None:
    with pytest.raises(CheckpointError, match="result"):
        ops.program(replace(traced, results=np.array([result])))


def test_a_result_that_is_never_written_is_refused(ops: NativeOps, traced: Encoded) -> None:
    unused = np.concatenate([traced.buffers, traced.buffers[traced.results]])
    with pytest.raises(CheckpointError, match="cannot be computed: the results are written"):
        ops.program(replace(traced, buffers=unused, results=np.array([len(unused) - 1])))


def test_an_operand_that_an_operation_has_no_use_for_is_checked_too(
    ops: NativeOps, traced: Encoded
) -> None:
    for name, value in (("y.buffer", 10**6), ("y.column", 2**62), ("z.column", -1)):
        tampered = with_field(with_field(traced, 0, f"{name[0]}.buffer", 0), 0, name, value)
        with pytest.raises(CheckpointError, match="step 1 of the pass, embedding"):
            ops.program(tampered)


def test_an_empty_tape_is_refused(ops: NativeOps, traced: Encoded) -> None:
    for empty in (
        replace(traced, tape=traced.tape[:0]),
        replace(traced, buffers=traced.buffers[:0]),
    ):
        with pytest.raises(CheckpointError, match="a tape and buffers"):
            ops.program(empty)


@pytest.mark.parametrize(
    "bounds",
    [
        [0, 3, 3, 5],
        [0, 4, 2, 5],
        [0, 5, 9],
        [0, 3],
        [1, 5],
        [-1, 5],
        [0, 2**62, 5],
        [0, -(2**63), 5],
        [0],
        list(range(8)),
    ],
    ids=str,
)
def test_bounds_that_are_not_those_of_texts_are_refused(
    ops: NativeOps, traced: Encoded, bounds: list[int]
) -> None:
    good = batch(5)
    bad = replace(good, layout=PackedLayout(np.array(bounds, np.int64), ()))
    with pytest.raises(ValueError, match="batch of 5 tokens"):
        ops.program(traced).run(bad)


@pytest.mark.parametrize("position", [-1, ROWS, 2**31 - 1])
def test_positions_are_checked_against_their_table_too(
    ops: NativeOps, traced: Encoded, position: int
) -> None:
    bad = replace(batch(5), positions=np.array([0, 1, position, 3, 4], np.int32))
    with pytest.raises(EmbeddingFailed, match=f"{ROWS} positions"):
        ops.program(traced).run(bad)


def test_a_result_without_room_is_refused(ops: NativeOps, traced: Encoded) -> None:
    given, why = batch(5), DECLARED.refusal()
    out = np.zeros(5, np.float32)
    for pointer, room in ((out.ctypes.data, 4), (out.ctypes.data, -1), (None, 5)):
        reason = ops._library.functions.embedsvc_run(
            *(
                program_pointer(ops, traced),
                given.ids.ctypes.data,
                given.positions.ctypes.data,
                None,
                5,
            ),
            *(given.layout.bounds.ctypes.data, None, 1, pointer, room, ctypes.byref(why)),
        )
        assert (reason, why.limit) == (DECLARED.reasons.index("BAD_RESULT"), 5)
    assert not out.any()


KEPT: list[Program] = []


def program_pointer(ops: NativeOps, traced: Encoded) -> int:
    KEPT.append(ops.program(traced))
    pointer: Any = KEPT[-1]._pointer
    return pointer


def test_a_pass_without_memory_is_an_error_and_the_next_one_is_right(
    ops: NativeOps, traced: Encoded
) -> None:
    """A batch that no machine has memory for, though nothing of it is touched."""
    wide = 1 << 21
    table = np.zeros((1, wide), np.float32)

    def function(ops: Any, batch: Batch) -> Any:
        rows = [ops.embedding(table, batch.ids) for _ in range(100)]
        for other in rows[1:]:
            ops.pool(ops.copy(rows[0]), batch.layout, ["mean"])
            ops.pool(other, batch.layout, ["mean"])
        return ops.pool(rows[0], batch.layout, ["cls"])

    many = batch(1 << 20)
    with pytest.raises(MemoryError, match=f"pass of {1 << 20} tokens"):
        ops.program(ops.trace(function)).run(many)
    assert np.isfinite(ops.program(traced).run(batch(3, 4))).all()


def test_more_parts_than_a_job_has_numbers_for_are_all_done() -> None:
    """Attention of a million heads in all: more than the thread pool counts at once."""
    texts, heads = 1 << 16, 17
    table = np.arange(3 * heads, dtype=np.float32)[None] + 1
    batch = NativeOps(1).batch([np.zeros(1, np.int32)] * texts)

    def function(ops: Any, batch: Batch) -> Any:
        q, k, v = columns(ops.embedding(table, batch.ids), heads, heads, heads)
        return ops.attention(q, k, v, Attention(heads, heads), batch.layout)

    found = NativeOps(2).compiled(function)(batch)
    assert found.shape == (texts, heads)
    assert (found == table[0, 2 * heads :]).all()


def test_a_pass_may_have_several_results(ops: NativeOps) -> None:
    """Of texts, of tokens, the same one twice, and columns of one."""
    table = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)

    def function(ops: Any, batch: Batch) -> Any:
        rows = ops.embedding(table, batch.ids)
        pooled = ops.pool(rows, batch.layout, ["mean", "cls"])
        first, _ = columns(pooled, WIDTH, WIDTH)
        return pooled, rows, first, rows

    given = batch(2, 5, 3)
    found = ops.program(ops.trace(function)).run(given)
    expected = NumpyOps(1).compiled(function)(given)
    for each, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, right, rtol=1e-6)


@pytest.mark.parametrize("results", [[], [0] * 9, [0, 0]], ids=len)
def test_results_are_a_few_different_buffers(
    ops: NativeOps, traced: Encoded, results: list[int]
) -> None:
    with pytest.raises(CheckpointError, match="result"):
        ops.program(replace(traced, results=np.array(results, np.int64)))
