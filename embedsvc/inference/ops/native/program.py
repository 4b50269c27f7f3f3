"""A pass that C has checked and runs, and what it says where it refuses to."""

import ctypes
import weakref
from typing import NoReturn

import numpy as np

from embedsvc.errors import CheckpointError
from embedsvc.inference.ops import held
from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.native import library
from embedsvc.inference.ops.native.library import Kernels, Refusal
from embedsvc.inference.ops.native.tape import OPERATIONS, Traced
from embedsvc.inference.ops.numpy import Floats


class Program:
    """May be run on several threads at once. Its memory goes when nobody refers to it any more."""

    def __init__(self, functions: ctypes.CDLL, kernels: Kernels, traced: Traced) -> None:
        """Raises `CheckpointError` that names the operation and the rule that it breaks."""
        why = Refusal()
        tape, buffers = traced.tape, traced.buffers
        self._functions = functions
        self._traced = traced  # whose weights it points to
        self._pointer = functions.embedsvc_program(
            *(kernels.number, tape.ctypes.data, len(tape), buffers.ctypes.data, len(buffers)),
            *(traced.result, why),
        )
        if not self._pointer:
            _refuse_program(traced, why)
        # Not at exit, when threads that nobody waits for may still run it.
        weakref.finalize(self, functions.embedsvc_free, self._pointer).atexit = False

    def run(self, batch: Batch) -> Floats:
        """The result's rows. Raises what `held` makes of a batch, and `MemoryError`."""
        bounds = batch.layout.bounds
        texts, tokens = len(bounds) - 1, len(batch.ids)
        width = self._traced.width
        out = np.empty((texts if self._traced.per_text else tokens, width), dtype=np.float32)
        why = Refusal()
        types = None if batch.types is None else batch.types.ctypes.data
        reason = self._functions.embedsvc_run(
            *(self._pointer, batch.ids.ctypes.data, batch.positions.ctypes.data, types, tokens),
            *(bounds.ctypes.data, texts, out.ctypes.data, out.size, why),
        )
        if reason != library.FINE:
            _refuse_batch(batch, why)
        return out


def _refuse_program(traced: Traced, why: Refusal) -> NoReturn:
    if why.reason == library.NO_MEMORY:
        raise MemoryError(f"no memory for a pass of {len(traced.tape)} steps")
    rule = (why.rule or b"").decode()
    if why.at < 0:
        raise CheckpointError(f"the pass cannot be computed: {rule}")
    operation = int(traced.tape["operation"][why.at])
    name = OPERATIONS[operation] if 0 <= operation < len(OPERATIONS) else f"operation {operation}"
    raise CheckpointError(f"step {why.at + 1} of the pass, {name}, cannot be: {rule}")


def _refuse_batch(batch: Batch, why: Refusal) -> NoReturn:
    match why.reason:
        case library.NO_MEMORY:
            raise MemoryError(f"no memory for a pass of {len(batch.ids)} tokens")
        case library.BAD_ID:
            raise held.no_id(why.value, why.limit)
        case library.BAD_TYPE:
            raise held.no_type(why.value, why.limit)
        case library.BAD_POSITION | library.BAD_LENGTH:
            raise held.too_long(int(np.diff(batch.layout.bounds).max()), why.limit)
        case _:
            raise ValueError(
                f"a batch of {len(batch.ids)} tokens whose text {why.at} ends at {why.value}"
            )
