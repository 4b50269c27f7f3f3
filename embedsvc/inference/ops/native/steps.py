"""What is on a tape: steps, and the arrays that they read and write."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


class NotOnTape(Exception):
    """The pass uses an operation that no kernel exists for."""


@dataclass(frozen=True, slots=True)
class Value:
    """An array of the pass that is traced: rows of a buffer, from one column on."""

    buffer: int
    column: int
    width: int

    def __getitem__(self, key: tuple[slice, slice]) -> "Value":
        """Some columns of all rows: `value[:, start:stop]`.

        >>> Value(buffer=3, column=10, width=8)[:, 2:5]
        Value(buffer=3, column=12, width=3)
        """
        rows, columns = key
        start, stop, step = columns.indices(self.width)
        if rows != slice(None) or step != 1:
            raise NotOnTape
        return Value(self.buffer, self.column + start, stop - start)


@dataclass(slots=True)
class Step:
    """One operation; `out` is what it writes, or changes in place."""

    operation: str
    out: Value
    x: Value | None = None
    y: Value | None = None
    z: Value | None = None
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    """Weights, by the fields of `Instruction` that point to them."""
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])
    """Its other fields; those of an enumeration by name."""

    def operands(self) -> dict[str, Value | None]:
        """By the fields of `Instruction`."""
        return {"x": self.x, "y": self.y, "z": self.z, "out": self.out}


@dataclass(frozen=True, slots=True)
class Rows:
    """A buffer before it is placed in memory."""

    width: int
    per_text: bool
    """Whether it has a row for each text, else for each token."""
