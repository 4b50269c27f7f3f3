"""What kernels.so declares: the structs and enumerations of operations.def, as Python uses them.

Nothing of it is written down here: names, fields and their order are read from the library.
"""

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

TYPES: dict[str, Any] = {
    "int64_t": ctypes.c_int64,
    "double": ctypes.c_double,
    "const char *": ctypes.c_char_p,
    "const float *": ctypes.c_void_p,
    "const int32_t *": ctypes.c_void_p,
}
"""The types of fields in C, and those of ctypes."""


class Refusal(Protocol):
    """Why C refused something, and where."""

    reason: int
    at: int
    value: int
    limit: int
    rule: bytes | None


class Declare(Protocol):
    """`embedsvc_declaration`: the text of a declaration and its size, or None."""

    def __call__(self, name: str) -> tuple[str, int] | None: ...


@dataclass(frozen=True, slots=True)
class Declarations:
    """The structs, and the names of each enumeration in the order of their numbers."""

    instruction: np.dtype[Any]
    buffer: np.dtype[Any]
    refusal: type[ctypes.Structure]
    operations: tuple[str, ...]
    by_text: frozenset[str]
    """Operations that are given all rows of a batch at once."""
    activations: tuple[str, ...]
    reads: tuple[str, ...]
    sources: tuple[str, ...]
    kinds: tuple[str, ...]
    reasons: tuple[str, ...]


def read_declarations(declare: Declare) -> Declarations:
    """Raises `ValueError` if something is missing, or not as ctypes lays it out."""
    operand = _structure("Operand", declare, TYPES)
    types = TYPES | {"Operand": operand}
    operations = _names("Operation", declare)
    scopes = _names("Scope", declare)
    return Declarations(
        instruction=np.dtype(_structure("Instruction", declare, types)),
        buffer=np.dtype(_structure("Buffer", declare, types)),
        refusal=_structure("Refusal", declare, types),
        operations=operations,
        by_text=frozenset(
            name for name, scope in zip(operations, scopes, strict=True) if scope == "BY_TEXT"
        ),
        activations=_names("Activation", declare),
        reads=_names("Read", declare),
        sources=_names("Source", declare),
        kinds=_names("Kind", declare),
        reasons=_names("Reason", declare),
    )


def _structure(name: str, declare: Declare, types: dict[str, Any]) -> type[ctypes.Structure]:
    """A struct from its fields: "int64_t width;int64_t kind;"."""
    parts, size = _parts(name, declare)
    fields: list[tuple[str, Any]] = []
    for part in parts:
        kind, _, field = part.rpartition(" ")
        if kind not in types:
            raise ValueError(f"{name}.{field} has the type {kind}")
        fields.append((field, types[kind]))
    structure = type(name, (ctypes.Structure,), {"_fields_": fields})
    if ctypes.sizeof(structure) != size:
        raise ValueError(f"{name} has {size} bytes, not {ctypes.sizeof(structure)}")
    return structure


def _names(name: str, declare: Declare) -> tuple[str, ...]:
    parts, count = _parts(name, declare)
    if len(parts) != count:
        raise ValueError(f"{name} has {count} values, not {len(parts)}")
    return parts


def _parts(name: str, declare: Declare) -> tuple[tuple[str, ...], int]:
    declared = declare(name)
    if declared is None:
        raise ValueError(f"there is no {name}")
    text, size = declared
    return tuple(text.split(";")[:-1]), size
