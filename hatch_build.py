"""Builds the kernels in C if there is a compiler. Without kernels embedsvc computes on NumPy."""

import os
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("embedsvc/inference/ops/native")
FLAGS = ("-std=gnu11", "-fPIC", "-pthread", "-fvisibility=hidden")
HARDENED = (
    ("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
    ("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"),
    ("-fstack-protector-strong",),
    ("-fstack-clash-protection",),
    ("-fcf-protection=full",),
    ("-mbranch-protection=standard",),
    ("-Wl,-z,relro,-z,now",),
    ("-Wl,-z,noexecstack",),
    ("-Wl,-z,defs",),
)
"""Flags that harden the library. Each group is left out where the compiler refuses it."""
CHECKED = ("-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fno-omit-frame-pointer", "-DEMBEDSVC_TEST")
"""Flags of a build for tests: a sanitizer takes the place of HARDENED."""
TRIAL = "#include <string.h>\nint tried(char *to, int n) { memset(to, n, n); return *to; }\n"


def compiler() -> list[str] | None:
    """The command of the C compiler, `$CC` or `cc`; None if there is none."""
    words = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(words[0])
    return [found, *words[1:]] if found else None


def build(command: list[str], output: Path, *, sanitize: str | None = None) -> bool:
    """Compile the kernels; returns whether that was possible. If it was not, there is no library.

    It is there as a whole or as it was before, so that whoever runs meanwhile has one.

    `sanitize` is what follows `-fsanitize=`. Such a library ends the process at its first report.
    """
    if sanitize is None:
        flags = [*FLAGS, "-O3", "-Wall", "-Wextra", *hardened(command)]
    else:
        flags = [*FLAGS, *CHECKED, f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"]
    sources = sorted(Path(__file__).parent.joinpath(FOLDER).glob("*.c"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        objects = [Path(folder, source.name).with_suffix(".o") for source in sources]

        def compiled(source: Path, to: Path) -> bool:
            words = [*command, *flags, "-c", str(source), "-o", str(to)]
            return not subprocess.run(words, check=False).returncode

        linked = output.with_name(f".{output.name}-{os.getpid()}")
        words = [*command, *flags, "-shared", *map(str, objects), "-o", str(linked), "-lm"]
        if not all(threads.map(compiled, sources, objects)) or (
            subprocess.run(words, check=False).returncode
        ):
            for file in (linked, output):
                file.unlink(missing_ok=True)
            return False
        linked.replace(output)
    return True


def hardened(command: list[str]) -> list[str]:
    """The flags of `HARDENED` that the compiler accepts without a warning."""
    whole = [flag for group in HARDENED for flag in group]
    if _accepts(command, whole):
        return whole
    accepted: list[str] = []
    for group in HARDENED:
        if _accepts(command, [*accepted, *group]):
            accepted += group
    return accepted


def _accepts(command: list[str], flags: list[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "tried.c"), Path(folder, "tried.so")
        source.write_text(TRIAL, encoding="utf-8")
        words = [*command, *FLAGS, "-shared", "-O3", "-Werror", *flags]
        words += [str(source), "-o", str(output)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        # A linker warns of an option that it does not know, and goes on.
        return not done.returncode and "warning" not in done.stderr


class KernelsHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = Path(self.root, FOLDER, "kernels.so")
        command = compiler()
        if command is None:
            library.unlink(missing_ok=True)
            return
        if not build(command, library):
            self.app.display_warning("The kernels were not built; NumPy is used instead.")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _platform() -> str:
    from packaging.tags import platform_tags

    return next(platform_tags())
