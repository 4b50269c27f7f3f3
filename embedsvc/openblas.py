"""Has OpenBLAS use AVX-512 where the processor has it.

OpenBLAS, as NumPy's wheels carry it, takes AMD processors newer than itself for ones without, and
then does matrix products at half their speed. It reads its one setting when NumPy is imported, so
this runs before: it is all that importing `embedsvc` does.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

SETTING = "OPENBLAS_CORETYPE"
KERNELS = "SkylakeX"
"""OpenBLAS's name for its AVX-512 kernels, whoever made the processor."""
NEEDS = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def choose_kernels(
    environ: MutableMapping[str, str] = os.environ, cpuinfo: Path = Path("/proc/cpuinfo")
) -> None:
    """Set `OPENBLAS_CORETYPE`, unless it is set, on an AMD processor with AVX-512 (Linux)."""
    if SETTING in environ:
        return
    try:
        about = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return
    lines = (line.partition(":") for line in about.splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    if values.get("vendor_id") == "AuthenticAMD" and set(values.get("flags", "").split()) >= NEEDS:
        environ[SETTING] = KERNELS
