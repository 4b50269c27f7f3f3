"""Passes of tiny checkpoints, and their results, in a file that `recorded.c` reads.

They are recorded on the kernels of the plainest instruction set. Its panels are as wide as those of
other kinds of processors, so that the file may be read there.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Batch, Floats
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.encoding import Encoded
from embedsvc.inference.ops.native.library import Kernels, Library
from embedsvc.inference.ops.native.program import Program
from embedsvc.inference.ops.native.steps import Value
from embedsvc.inference.ops.native.tape import Tape
from tests.support.passes import batch as ids_of_zero
from tests.support.passes import everything
from tests.support.tiny import Case

BOUNDS: dict[Dtype, float] = {"float32": 2e-5, "bfloat16": 0.02, "int8": 0.05}
"""How far a result may be off, beside the largest: a sum in another order may round otherwise."""
LINE = 64


class Recording(Program):
    """It keeps the last batch that it ran, and its result."""

    def __init__(self, library: Library, kernels: Kernels, encoded: Encoded) -> None:
        super().__init__(library, kernels, encoded)
        self.encoded = encoded
        self.ran: tuple[Batch, Floats] | None = None

    def run(self, batch: Batch) -> Floats:
        result = super().run(batch)
        assert not isinstance(result, tuple)
        self.ran = (batch, result)
        return result


class RecordingOps(NativeOps):
    """Operations on the plainest kernels, that keep their passes."""

    def __init__(self, dtype: Dtype) -> None:
        self.kernels = library.load().kernels[-1]
        super().__init__(1, self.kernels, dtype)
        self.recordings: list[Recording] = []

    def _attention(self) -> str:
        return "attention" if self.dtype == "float32" else "attention_bfloat16"

    def _run_alone(
        self, operation: Callable[[Tape, list[Value]], Value], *inputs: Floats
    ) -> Floats:
        """It keeps none of an operation of a pass on NumPy, which overwrites its input."""
        kept = len(self.recordings)
        result = super()._run_alone(operation, *inputs)
        del self.recordings[kept:]
        return result

    def program(self, encoded: Encoded) -> Program:
        self.recordings.append(Recording(self._library, self.kernels, encoded))
        return self.recordings[-1]


def record(file: Path, cases: dict[Dtype, dict[str, Case]]) -> int:
    """Write the passes of all checkpoints in their precisions, and one of every operation in each;
    returns how many there are."""
    written = 0
    with file.open("wb") as to:
        for dtype, some in cases.items():
            ops = RecordingOps(dtype)
            ops.program(ops.trace(everything(ops))).run(ids_of_zero(1, 3, 9))
            for name, case in some.items():
                path = case.write(file.parent / f"{name}-{dtype}")
                load_encoder(ops, open_checkpoint(Card(id=name, path=path))).encode(case.texts())
            for recording in ops.recordings:
                to.write(in_bytes(recording, ops, BOUNDS[dtype]))
            written += len(ops.recordings)
    return written


def in_bytes(recording: Recording, ops: RecordingOps, bound: float) -> bytes:
    """A pass as `recorded.c` reads it."""
    assert recording.ran is not None
    encoded, (batch, result) = recording.encoded, recording.ran
    tape, weights, pointers = encoded.tape.copy(), bytearray(), list[tuple[int, int]]()
    places = {array.ctypes.data: array for array in encoded.weights}
    fields: Any = tape.dtype.fields
    for at, instruction in enumerate(tape):
        for name in (name for name in tape.dtype.names or () if f"{name}_size" in fields):
            array = places.get(int(instruction[name]))
            if array is not None:
                pointers.append((at * tape.itemsize + fields[name][1], len(weights)))
                weights += array.tobytes() + bytes(-array.nbytes % LINE)
            instruction[name] = 0
    tokens, bounds = len(batch.ids), batch.layout.bounds
    types = batch.types if batch.types is not None else np.zeros(tokens, np.int32)
    head = struct.pack(
        "<13qd",
        *(ops.kernels.panel, len(tape), tape.itemsize, len(encoded.buffers)),
        *(encoded.buffers.itemsize, encoded.results[0], len(pointers), len(weights), tokens),
        *(len(bounds) - 1, batch.types is not None, encoded.per_text[0], result.shape[1], bound),
    )
    arrays = (np.array(pointers, np.int64), weights, batch.ids, batch.positions, types, bounds)
    parts = (tape, encoded.buffers, *arrays, result)
    return head + b"".join(bytes(part) for part in parts)
