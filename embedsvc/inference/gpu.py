"""Whether there may be a GPU for MLX, and if none is used, why not and what would help."""

import ctypes
import importlib.util
import sys
from typing import NamedTuple

from embedsvc.system.mac import Mac, this_mac

OLDEST_MACOS = 14
"""The oldest macOS that MLX has a wheel for."""
CUDA = "`pip install 'embedsvc[cuda]'`"


class Unused(NamedTuple):
    """Why a GPU is not used, and what to do."""

    why: str
    hint: str
    mendable: bool = True
    """Whether the hint has it used."""


def gpu_likely() -> bool:
    """Whether it is worth importing MLX to ask it for a GPU."""
    return mlx_installed() and (sys.platform == "darwin" or has_driver())


def mlx_installed() -> bool:
    return importlib.util.find_spec("mlx") is not None


def has_driver() -> bool:
    """Whether NVIDIA's driver is here. In WSL and in containers there is no more than that."""
    return _loads("libcuda.so.1")


def unused_gpu() -> Unused | None:
    """Why no GPU is used; None on a machine that is not known to have one.

    It is asked only where none is used.
    """
    mac = this_mac()
    if mac is not None:
        return _unused_on(mac)
    if not has_driver():
        return None
    if mlx_installed():
        return Unused("MLX finds no GPU, though there is a driver for one", CUDA)
    return Unused("there is a driver for one, but no MLX", CUDA)


def how_to_install() -> str:
    """What makes the backend `mlx` one that can be loaded, in words."""
    mac = this_mac()
    if mac is not None:
        unused = _unused_on(mac)
        return unused.hint if unused.mendable else "on an Intel Mac there is no MLX"
    return f"{CUDA} on NVIDIA, `pip install 'embedsvc[mlx-cpu]'` without a GPU"


def _unused_on(mac: Mac) -> Unused:
    if not mac.silicon:
        return Unused(
            "an Intel Mac has none that MLX computes on; the processor computes",
            "small models suit it: docs/models.md has sizes",
            mendable=False,
        )
    if mac.translated:
        return Unused(
            "Rosetta translates this Python, which is for Intel's processors and has no MLX",
            "take a Python for Apple silicon (python.org's, or Homebrew's in /opt/homebrew): "
            "`make clean`, `make serve PYTHON=/opt/homebrew/bin/python3.13`",
        )
    if mac.macos < OLDEST_MACOS:
        return Unused(
            f"MLX needs macOS {OLDEST_MACOS} or newer, and this is {mac.macos}",
            "update macOS, then `make clean` and `make serve`",
        )
    if not mlx_installed():
        return Unused("MLX is not installed", "`pip install mlx`")
    return Unused("MLX finds no GPU", "a virtual machine may have none: run it outside")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
