"""A traced pass as the structs that C reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.native.buffers import kinds_of, share_memory
from embedsvc.inference.ops.native.declarations import Declarations
from embedsvc.inference.ops.native.steps import Step, Value
from embedsvc.inference.ops.native.tape import Tape


@dataclass(frozen=True, slots=True)
class Encoded:
    """A pass, ready to be checked and run."""

    tape: NDArray[Any]  # of `Instruction`
    buffers: NDArray[Any]  # of `Buffer`
    results: NDArray[np.int64]  # the numbers of buffers
    per_text: tuple[bool, ...]  # whether each result has a row for each text, else for each token
    weights: tuple[NDArray[Any], ...]  # what the tape points to


def encode(tape: Tape, values: Sequence[Value], declared: Declarations) -> Encoded:
    """The pass with those results, each in a buffer of its own."""
    results = [value.buffer for value in values]
    kinds = kinds_of(tape.steps, tape.buffers, results, declared.by_text)
    place = share_memory(tape.steps, tape.buffers, kinds, results)
    used = sorted(set(place))
    numbers = [used.index(memory) for memory in place]
    instructions = np.zeros(len(tape.steps), declared.instruction)
    for instruction, step in zip(instructions, tape.steps, strict=True):
        _fill(instruction, step, numbers, declared)
    buffers = [(tape.buffers[b].width, declared.kinds.index(kinds[b])) for b in used]
    return Encoded(
        tape=instructions,
        buffers=np.array(buffers, declared.buffer),
        results=np.array([numbers[result] for result in results], np.int64),
        per_text=tuple(tape.buffers[result].per_text for result in results),
        weights=tuple(array for step in tape.steps for array in step.arrays.values()),
    )


def _fill(instruction: Any, step: Step, numbers: list[int], declared: Declarations) -> None:
    """Write a step into its row of the tape; `numbers` has the final number of each buffer."""
    instruction["operation"] = declared.operations.index(step.operation)
    instruction["width"] = step.out.width
    for name, value in step.operands().items():
        instruction[name] = (-1, 0) if value is None else (numbers[value.buffer], value.column)
    for name, array in step.arrays.items():
        instruction[name] = array.ctypes.data
        instruction[f"{name}_size"] = array.size
    for name, number in step.numbers.items():
        match name:
            case "activation":
                instruction[name] = declared.activations.index(number)
            case "read":
                instruction[name] = declared.reads.index(number)
            case "source":
                instruction[name] = declared.sources.index(number)
            case _:
                instruction[name] = number
