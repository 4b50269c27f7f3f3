"""The kernels' library, built with the package if there was a C compiler."""

import ctypes
from pathlib import Path
from typing import NamedTuple

LIBRARY = Path(__file__).with_name("kernels.so")
KERNELS = 3


class Kernels(NamedTuple):
    """The operations compiled for one instruction set."""

    pointer: int
    name: str
    panel: int
    """Columns of a panel of weights."""
    instruction_bytes: int


def built() -> bool:
    """Whether the library is there."""
    return LIBRARY.exists()


def load() -> ctypes.CDLL:
    """The library, with what its functions take.

    Raises `OSError` if it is not there or was built for another kind of machine.
    """
    library = ctypes.CDLL(str(LIBRARY))
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    numbers = ctypes.POINTER(number)
    library.embedsvc_kernels.restype = pointer
    library.embedsvc_kernels.argtypes = [ctypes.c_int, ctypes.c_char_p, numbers, numbers]
    library.embedsvc_run.restype = ctypes.c_int
    library.embedsvc_run.argtypes = [
        pointer,
        *(pointer, number, pointer, number),
        *(pointer, pointer, number),
        *(pointer, number),
        *(number, pointer),
    ]
    return library


def kernels(library: ctypes.CDLL) -> list[Kernels]:
    """What this processor can run, the fastest first."""
    found: list[Kernels] = []
    for number in range(KERNELS):
        name = ctypes.create_string_buffer(16)
        panel, instruction = ctypes.c_int64(), ctypes.c_int64()
        pointer = library.embedsvc_kernels(number, name, panel, instruction)
        if pointer:
            found.append(Kernels(pointer, name.value.decode(), panel.value, instruction.value))
    return found
