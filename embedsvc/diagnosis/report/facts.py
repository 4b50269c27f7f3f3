"""What a report says of the machine, its system and the backend, and nothing of who uses it."""

import platform
import re
import sys

from embedsvc import __version__
from embedsvc.diagnosis.computing import installed
from embedsvc.diagnosis.report import Backend, Machine
from embedsvc.inference.gpu import unused_gpu
from embedsvc.inference.ops.hardware import Hardware
from embedsvc.serving.model_memory import weight_limit
from embedsvc.system import machine
from embedsvc.system.mac import sysctl_text, this_mac
from embedsvc.system.processor import this_processor

PACKAGES = ("mlx", "numpy", "tokenizers", "safetensors")
NUMBERS = re.compile(r"\d+(?:\.\d+)*")


def versions() -> dict[str, str]:
    """The versions of what vectors and times depend on."""
    found = {"embedsvc": __version__, "python": platform.python_version()}
    return found | {name: installed(name) for name in PACKAGES}


def this_machine() -> Machine:
    """This machine."""
    mac, processor = this_mac(), this_processor()
    cores, memory = machine.cores(), machine.memory()
    return Machine(
        system=_system(),
        processor=processor.name,
        architecture=platform.machine(),
        model=sysctl_text("hw.model") if mac else None,
        cores=cores.machine,
        usable_cores=cores.usable,
        fast_cores=processor.fast_cores,
        slow_cores=processor.slow_cores,
        memory_bytes=memory.machine,
        usable_memory_bytes=memory.usable,
        translated=mac is not None and mac.translated,
    )


def backend(ops: Hardware) -> Backend:
    """The backend that models are measured on."""
    unused = unused_gpu() if ops.name != "mlx" else None
    models = weight_limit(ops, None)
    why = unused.why if unused else None
    return Backend(ops.name, ops.dtype, ops.device, ops.memory, models, why)


def _system() -> str:
    """The name and version of the system. Of a kernel's only the numbers: who builds one may have
    named it."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    kernel = NUMBERS.match(platform.release())
    name = platform.system() + (f" {kernel[0]}" if kernel else "")
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return name
    return f"{release['ID']} {release.get('VERSION_ID', '')}".strip() + f", {name}"
