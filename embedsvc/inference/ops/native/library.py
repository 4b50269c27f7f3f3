"""The kernels' library, built with the package if there was a C compiler."""

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

from embedsvc.inference.ops.native.tape import BUFFER, INSTRUCTION

LIBRARY = Path(__file__).with_name("kernels.so")
KERNELS = 3
ABI = 4
"""Of tape.h; it counts up with whatever both sides have to agree on."""
FINE, NO_MEMORY, BAD_TAPE, BAD_ID, BAD_POSITION, BAD_TYPE, BAD_LENGTH, BAD_BATCH, BAD_RESULT = (
    range(9)
)


class Refusal(ctypes.Structure):
    """`Refusal` of tape.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("reason", "at", "value", "limit")),
        ("rule", ctypes.c_char_p),
    )
    reason: int
    at: int
    value: int
    limit: int
    rule: bytes | None


class Kernels(NamedTuple):
    """The operations compiled for one instruction set."""

    number: int
    name: str
    panel: int
    """Columns of a panel of weights."""


def built() -> bool:
    """Whether the library is there."""
    return LIBRARY.exists()


def load() -> ctypes.CDLL:
    """The library, with what its functions take.

    Raises `OSError` if it is not there, or was built for another kind of machine or from another
    version of the package.
    """
    library = ctypes.CDLL(str(LIBRARY))
    number, pointer, why = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(Refusal)
    functions: dict[str, tuple[Any, list[Any]]] = {
        "abi": (number, []),
        "sizes": (number, [ctypes.c_int]),
        "kernels": (ctypes.c_int, [ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(number)]),
        "threads": (None, [ctypes.c_int]),
        "kept": (number, []),
        "release": (None, []),
        "program": (pointer, [ctypes.c_int, pointer, number, pointer, number, number, why]),
        "free": (None, [pointer]),
        "run": (
            ctypes.c_int,
            [pointer, *[pointer] * 3, number, pointer, number, pointer, number, why],
        ),
    }
    try:
        for name, (result, arguments) in functions.items():
            function = getattr(library, f"embedsvc_{name}")
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        raise _other_version() from None
    sizes = [INSTRUCTION.itemsize, BUFFER.itemsize, ctypes.sizeof(Refusal)]
    if library.embedsvc_abi() != ABI or [library.embedsvc_sizes(i) for i in range(3)] != sizes:
        raise _other_version()
    return library


def kernels(library: ctypes.CDLL) -> list[Kernels]:
    """What this processor can run, the fastest first."""
    found: list[Kernels] = []
    for number in range(KERNELS):
        name, panel = ctypes.create_string_buffer(16), ctypes.c_int64()
        if library.embedsvc_kernels(number, name, panel):
            found.append(Kernels(number, name.value.decode(), panel.value))
    return found


def _other_version() -> OSError:
    return OSError(f"{LIBRARY} was built from another version: install embedsvc again")
