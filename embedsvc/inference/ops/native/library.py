"""kernels.so, the kernels in C: built with the package if there was a C compiler."""

import ctypes
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from embedsvc.inference.ops.native.declarations import Declarations, read_declarations

LIBRARY = Path(__file__).with_name("kernels.so")
ABI = 7
"""As in tape.h: the version of the functions that are called here."""


class Kernels(NamedTuple):
    """The operations for one instruction set, and what multiplies for them in lower precisions."""

    number: int
    name: str
    panel: int
    """Columns of a panel of weights."""
    bfloat16: str = ""
    """The instructions that multiply in bfloat16; those of int8; and any that this processor has
    and that were found to give something else, so that they are not used."""
    int8: str = ""
    distrusted: str = ""


@dataclass(frozen=True)
class Library:
    """The library's functions, and the structs that they take."""

    functions: Any
    """A `ctypes.CDLL`."""
    declared: Declarations

    @cached_property
    def kernels(self) -> tuple[Kernels, ...]:
        """Those that this processor can run, the fastest first."""
        found: list[Kernels] = []
        panel = ctypes.c_int64()
        while names := self.functions.embedsvc_kernels(len(found), panel):
            name, *ways = names.decode().split(";")
            found.append(Kernels(len(found), name, panel.value, *ways))
        return tuple(found)


def built() -> bool:
    """Whether the library is there."""
    return LIBRARY.exists()


def load() -> Library:
    """The library.

    Raises `OSError` if it is not there, or was built for another kind of machine or from another
    version of the package.
    """
    functions = ctypes.CDLL(str(LIBRARY))

    def declare(name: str) -> tuple[str, int] | None:
        size = ctypes.c_int64()
        text = functions.embedsvc_declaration(name.encode(), size)
        return None if text is None else (text.decode(), size.value)

    try:
        _set_type(functions, "abi", ctypes.c_int64)
        if functions.embedsvc_abi() != ABI:
            raise _other_version()
        _set_types(functions)
        return Library(functions, read_declarations(declare))
    except (AttributeError, ValueError):
        raise _other_version() from None


def _set_types(functions: Any) -> None:
    """Tell ctypes what the functions take and return."""
    number, pointer, flag = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    _set_type(functions, "declaration", ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(number))
    _set_type(functions, "kernels", ctypes.c_char_p, flag, ctypes.POINTER(number))
    _set_type(functions, "threads", None, flag)
    _set_type(functions, "kept", number)
    _set_type(functions, "release", None)
    tape, buffers, results = (pointer, number), (pointer, number), (pointer, number)
    _set_type(functions, "program", pointer, flag, *tape, *buffers, *results, pointer)
    _set_type(functions, "free", None, pointer)
    sources, bounds, out = (pointer, pointer, pointer, number), (pointer, number), (pointer, number)
    _set_type(functions, "maxsim", flag, flag, pointer, number, number, pointer, *bounds, pointer)
    _set_type(functions, "run", flag, pointer, *sources, pointer, *bounds, *out, pointer)


def _set_type(functions: Any, name: str, result: Any, *arguments: Any) -> None:
    function = getattr(functions, f"embedsvc_{name}")
    function.restype, function.argtypes = result, arguments


def _other_version() -> OSError:
    return OSError(f"{LIBRARY} was built from another version: install embedsvc again")
