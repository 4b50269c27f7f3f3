"""Where the buffers of a traced pass go: into chunks, into memory that others need no longer."""

from collections.abc import Callable
from typing import Any

import numpy as np

from embedsvc.inference.ops.base import Attention, Batch, columns
from embedsvc.inference.ops.native import library
from embedsvc.inference.ops.native.buffers import kinds_of, share_memory
from embedsvc.inference.ops.native.tape import Tape, trace

WIDTH = 4
TABLE = np.ones((3, WIDTH), np.float32)
BY_TEXT = library.load().declared.by_text
Pass = Callable[[Any, Batch], Any]


def kinds(function: Pass) -> list[str]:
    tape, results = trace(function, Tape())
    return kinds_of(tape.steps, tape.buffers, [each.buffer for each in results], BY_TEXT)


def places(function: Pass) -> list[int]:
    tape, values = trace(function, Tape())
    results = [value.buffer for value in values]
    kinds = kinds_of(tape.steps, tape.buffers, results, BY_TEXT)
    return share_memory(tape.steps, tape.buffers, kinds, results)


def attended(ops: Any, batch: Batch) -> Any:
    """Buffers: words, wide, context, output, pooled."""
    words = ops.embedding(TABLE, batch.ids)
    wide = ops.embedding(np.ones((3, 3 * WIDTH), np.float32), batch.ids)
    q, k, v = columns(ops.add(wide, wide), WIDTH, WIDTH, WIDTH)
    context = ops.attention(q, k, v, Attention(1, 1), batch.layout)
    output = ops.add(ops.copy(context), words)
    return ops.pool(output, batch.layout, ["mean"])


def test_what_one_stretch_of_steps_uses_is_kept_for_a_chunk_only() -> None:
    def function(ops: Any, batch: Batch) -> Any:
        words = ops.embedding(TABLE, batch.ids)
        return ops.add(ops.copy(ops.copy(words)), words)

    assert kinds(function) == ["CHUNK", "CHUNK", "TOKENS"]


def test_what_attention_reads_and_what_is_used_behind_it_is_kept_for_all_tokens() -> None:
    assert kinds(attended) == ["TOKENS", "TOKENS", "TOKENS", "TOKENS", "TEXTS"]


def test_memory_goes_to_a_later_buffer_that_is_alike() -> None:
    def function(ops: Any, batch: Batch) -> Any:
        first = ops.embedding(TABLE, batch.ids)
        second = ops.copy(first)  # the first is needed here, and no more
        third = ops.copy(second)
        return ops.copy(third)

    assert places(function) == [0, 1, 0, 3]


def test_no_buffer_takes_memory_that_a_later_step_needs() -> None:
    def function(ops: Any, batch: Batch) -> Any:
        first = ops.embedding(TABLE, batch.ids)
        second = ops.copy(ops.copy(first))
        return ops.add(ops.copy(second), first)

    assert places(function) == [0, 1, 2, 3]


def test_the_result_shares_with_nobody() -> None:
    assert places(attended)[-1] == 4
    assert places(attended).count(4) == 1
