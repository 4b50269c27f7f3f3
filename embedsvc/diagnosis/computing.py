"""Findings about what computes: versions, the backend, cores, memory."""

import os
import platform
import sys
from collections.abc import Generator, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from embedsvc import __version__
from embedsvc.catalog.cards import Dtype
from embedsvc.diagnosis.finding import Finding, note, ok, wrong
from embedsvc.errors import CardsError
from embedsvc.inference.device import open_device
from embedsvc.inference.gpu import unused_gpu
from embedsvc.inference.ops.hardware import Hardware
from embedsvc.inference.ops.native import library
from embedsvc.settings import BackendChoice
from embedsvc.system import machine
from embedsvc.system.mac import this_mac

PACKAGES = ("numpy", "tokenizers", "safetensors", "huggingface-hub", "uvicorn", "mlx")
COMPILER = "apt-get install gcc libc6-dev, or xcode-select --install; then install embedsvc again"
RESIDENT_MACOS = 15
"""The oldest macOS that MLX can have keep weights in the GPU's memory while they are not used."""
SMALL = 6 << 30
"""With less memory for models, what fits is worth saying: 8 GB of a Mac are fewer."""
BYTES = {"float32": 4, "int8": 1}
"""Bytes of a weight, where they are not 2."""


def versions() -> Iterator[Finding]:
    """The versions of embedsvc, Python, the machine, and the packages that vectors depend on."""
    yield ok("embedsvc", f"{__version__}, in {Path(__file__).parent.parent}")
    python = f"{platform.python_version()}, {sys.executable}"
    yield ok(
        "Python", f"{python}, on {platform.system()} {platform.release()} {platform.machine()}"
    )
    yield ok("packages", ", ".join(f"{name} {installed(name)}" for name in PACKAGES))


def backend(
    choice: BackendChoice, dtype: Dtype | None = None
) -> Generator[Finding, None, Hardware | None]:
    """The backend that a server would use, and why. Returns what it is; None if there is none."""
    try:
        device = open_device(choice, dtype=dtype)
    except CardsError as error:
        yield wrong("backend", error)
        return None
    ops = device.ops
    device.close()
    chosen = "asked for" if choice != "auto" else _why(ops.name)
    yield ok("backend", f"{ops.name}, {ops.dtype}, on {ops.device}; {chosen}")
    if ops.name == "native":
        yield precisions(library.load().kernels[0])
    if choice == "auto" and ops.name == "numpy":
        yield note("kernels", "not built: NumPy computes, at about half the speed", COMPILER)
    unused = unused_gpu() if choice == "auto" and ops.name != "mlx" else None
    if unused is not None:
        yield note("GPU", unused.why, unused.hint)
    mac = this_mac()
    if mac is not None and ops.name == "mlx" and mac.macos < RESIDENT_MACOS:
        seen = (
            f"macOS {mac.macos} may take away what is not used, and one text after a pause is slow"
        )
        yield note("GPU", seen, f"macOS {RESIDENT_MACOS} or newer keeps weights where they are")
    return ops


def precisions(kernels: library.Kernels) -> Finding:
    """What multiplies in the lower precisions of a CPU."""
    seen = f"bfloat16 by {kernels.bfloat16}, int8 by {kernels.int8}"
    if kernels.distrusted:
        return note("precisions", f"{seen}; {kernels.distrusted} gives other results: not used")
    return ok("precisions", f"{seen}, where `dtype` asks for them")


def room(ops: Hardware, limit: int) -> Iterator[Finding]:
    """How much memory models may take, and on a small machine what fits and what helps."""
    share = f"{_gib(limit)} GiB together, of {_gib(ops.memory)} (--max-memory)"
    if limit >= SMALL:
        yield ok("room", f"models may take {share}")
        return
    billions = limit / (1e9 * BYTES.get(ops.dtype, 2))
    seen = f"models may take {share}: {billions:.2g} billion parameters in {ops.dtype}"
    yield note("room", seen, f"{smaller(ops)}; `--keep-alive 10m` gives back what is not used")


def smaller(ops: Hardware) -> str:
    """What has a model take less memory there. A CPU expands what is quantised."""
    if ops.name == "mlx":
        return "a smaller model, or fewer bits: `embedsvc convert MODEL FOLDER --bits 4`"
    if "int8" in ops.dtypes and ops.dtype != "int8":
        return "a smaller model, or `--dtype int8`, a quarter of float32 but for embeddings"
    return "a smaller model"


def cores() -> Iterator[Finding]:
    """The cores of the machine, and those that the affinity mask and a container's quota leave."""
    share = machine.cores()
    seen = f"{share.usable} of {share.machine}"
    if share.limit:
        seen += f"; {share.limit.file} allows for {share.limit.value:.3g}"
    yield ok("cores", seen)


def memory() -> Iterator[Finding]:
    """The memory of the machine, and a container's share of it."""
    page = os.sysconf("SC_PAGE_SIZE")
    share = machine.memory()
    seen = f"{_gib(share.machine)} GiB"
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        seen += f", {_gib(_available() or page * os.sysconf('SC_AVPHYS_PAGES'))} of them available"
    if share.limit:
        seen += f"; limited to {_gib(int(share.limit.value))} GiB by {share.limit.file}"
    yield ok("memory", seen)


def _why(name: str) -> str:
    """Why the setting `auto` chooses the backend of that name."""
    if name == "mlx":
        return "MLX finds a GPU"
    gpu = "no GPU is used" if unused_gpu() else "no driver for a GPU"
    built = "kernels in C are built" if library.built() else "no kernels in C are built"
    return f"{gpu}, {built}"


def installed(package: str) -> str:
    """The version of a package, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _available() -> int | None:
    """How many bytes Linux could give to processes; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kib[0]) * 1024 if kib else None


def _gib(size: int) -> str:
    """Bytes in GiB.

    >>> _gib(16 << 30)
    '16.0'
    """
    return f"{size / 2**30:.1f}"
