"""A pass that C has checked and runs, and what is raised where C refuses."""

import ctypes
import math
import weakref
from itertools import accumulate
from typing import Any, NoReturn

import numpy as np

from embedsvc.errors import CheckpointError
from embedsvc.inference.ops import table_limits
from embedsvc.inference.ops.base import Batch, Floats
from embedsvc.inference.ops.native.declarations import Refusal
from embedsvc.inference.ops.native.encoding import Encoded
from embedsvc.inference.ops.native.library import Kernels, Library


class Program:
    """It may run on several threads at once. Its memory is freed when nothing refers to it."""

    def __init__(self, library: Library, kernels: Kernels, encoded: Encoded) -> None:
        """Raises `CheckpointError` that names the operation and the rule that it breaks."""
        functions: Any = library.functions
        why: Any = library.declared.refusal()
        tape, buffers = encoded.tape, encoded.buffers
        self._library = library
        self._encoded = encoded  # it keeps the weights that the tape points to
        self._pointer = functions.embedsvc_program(
            *(kernels.number, tape.ctypes.data, len(tape), buffers.ctypes.data, len(buffers)),
            *(encoded.results.ctypes.data, len(encoded.results), ctypes.byref(why)),
        )
        if not self._pointer:
            _refuse_program(library, encoded, why)
        self._widths: list[int] = buffers["width"][encoded.results].tolist()
        # Not when Python exits: threads that nobody waits for may still run it then.
        weakref.finalize(self, functions.embedsvc_free, self._pointer).atexit = False

    def run(self, batch: Batch) -> Floats | tuple[Floats, ...]:
        """The rows of the result, or of each where the pass has several.

        Raises `EmbeddingFailed` for what a table has no row for, and `MemoryError`.
        """
        bounds = batch.layout.bounds
        texts, tokens = len(bounds) - 1, len(batch.ids)
        shapes = [
            (texts if per_text else tokens, width)
            for width, per_text in zip(self._widths, self._encoded.per_text, strict=True)
        ]
        out = np.empty(sum(map(math.prod, shapes)), dtype=np.float32)
        why: Any = self._library.declared.refusal()
        types, seen = (
            None if x is None else x.ctypes.data for x in (batch.types, batch.layout.seen)
        )
        reason = self._library.functions.embedsvc_run(
            *(self._pointer, batch.ids.ctypes.data, batch.positions.ctypes.data, types, tokens),
            *(bounds.ctypes.data, seen, texts, out.ctypes.data, out.size, ctypes.byref(why)),
        )
        if reason:
            _refuse_batch(self._library, batch, why)
        if len(shapes) == 1:
            return out.reshape(shapes[0])
        ends = list(accumulate(map(math.prod, shapes)))
        return tuple(
            part.reshape(shape)
            for part, shape in zip(np.split(out, ends[:-1]), shapes, strict=True)
        )


def _refuse_program(library: Library, encoded: Encoded, why: Refusal) -> NoReturn:
    if library.declared.reasons[why.reason] == "NO_MEMORY":
        raise MemoryError(f"no memory for a pass of {len(encoded.tape)} steps")
    rule = (why.rule or b"").decode()
    if why.at < 0:
        raise CheckpointError(f"the pass cannot be computed: {rule}")
    number = int(encoded.tape["operation"][why.at])
    names = library.declared.operations
    name = names[number] if 0 <= number < len(names) else f"operation {number}"
    raise CheckpointError(f"step {why.at + 1} of the pass, {name}, cannot be: {rule}")


def _refuse_batch(library: Library, batch: Batch, why: Refusal) -> NoReturn:
    match library.declared.reasons[why.reason]:
        case "NO_MEMORY":
            raise MemoryError(f"no memory for a pass of {len(batch.ids)} tokens")
        case "BAD_ID":
            raise table_limits.no_id(why.value, why.limit)
        case "BAD_TYPE":
            raise table_limits.no_type(why.value, why.limit)
        case "BAD_POSITION" | "BAD_LENGTH":
            raise table_limits.too_long(int(np.diff(batch.layout.bounds).max()), why.limit)
        case "BAD_SEEN":
            raise table_limits.sees_none(why.value, why.limit)
        case _:
            raise ValueError(
                f"a batch of {len(batch.ids)} tokens whose text {why.at} ends at {why.value}"
            )
