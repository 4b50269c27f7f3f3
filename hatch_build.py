"""Builds the kernels in C if there is a compiler; without one, embedsvc computes on NumPy."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("embedsvc/ops/native")
FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra"]


class KernelsHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = Path(self.root, FOLDER, "kernels.so")
        library.unlink(missing_ok=True)
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if self.target_name != "wheel" or compiler is None:
            return
        sources = sorted(map(str, library.parent.glob("*.c")))
        done = subprocess.run([compiler, *FLAGS, *sources, "-o", str(library), "-lm"], check=False)
        if done.returncode:
            self.app.display_warning("The kernels were not built; NumPy is used instead.")
            library.unlink(missing_ok=True)
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _platform() -> str:
    from packaging.tags import platform_tags

    return next(platform_tags())
