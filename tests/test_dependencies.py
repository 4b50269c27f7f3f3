"""Which packages are installed where: the markers in pyproject.toml, and those of the pins."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.support.project import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MACHINES = {
    "macOS 13": ("darwin", "arm64", "Darwin Kernel Version 22.6.0: Wed Jul  5 22:22:05 PDT 2023"),
    "macOS 14": ("darwin", "arm64", "Darwin Kernel Version 23.0.0: Fri Sep 15 14:41:43 PDT 2023"),
    "macOS 26": ("darwin", "arm64", "Darwin Kernel Version 25.1.0: Mon Oct 20 19:34:05 PDT 2025"),
    "Intel": ("darwin", "x86_64", "Darwin Kernel Version 23.6.0: Mon Jul 29 21:13:00 PDT 2024"),
    "Rosetta": ("darwin", "x86_64", "Darwin Kernel Version 24.1.0: Thu Oct 10 21:06:57 PDT 2024"),
    "Linux": ("linux", "x86_64", "#22.1 Version 22.6.0"),
}
WITH_MLX = {"macOS 14", "macOS 26"}
"""It has wheels for Apple silicon from macOS 14 on. On Linux it is an extra."""


def environment(machine: str) -> dict[str, str]:
    """The markers' variables on a machine, for any Python."""
    names = ("sys_platform", "platform_machine", "platform_version")
    return dict(zip(names, MACHINES[machine], strict=True)) | {"python_version": "3.13"}


def needed(machine: str) -> set[str]:
    """The names of the packages that the service itself needs on a machine."""
    requirements = map(Requirement, PYPROJECT["project"]["dependencies"])
    there = environment(machine)
    return {each.name for each in requirements if not each.marker or each.marker.evaluate(there)}


def pinned(machine: str) -> set[str]:
    """The names of the packages that `make serve` installs on a machine."""
    lines = (ROOT / "requirements/runtime.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"[a-z]", line)]
    there = environment(machine) | {"python_full_version": "3.13.0"}
    return {each.name for each in pins if not each.marker or each.marker.evaluate(there)}


@pytest.mark.parametrize("machine", MACHINES)
def test_mlx_is_asked_for_only_where_there_is_a_wheel_of_it(machine: str) -> None:
    assert ("mlx" in needed(machine)) is (machine in WITH_MLX)
    assert {name for name in pinned(machine) if name.startswith("mlx")} == (
        {"mlx", "mlx-metal"} if machine in WITH_MLX else set()
    )


def test_everything_else_is_the_same_on_all_machines() -> None:
    for machine in MACHINES:
        assert needed(machine) - {"mlx"} == needed("macOS 13")
        assert needed(machine) <= pinned(machine)


def test_no_mlx_is_allowed_that_crashes_at_exit_and_every_pin_is_allowed() -> None:
    lists = [
        PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"].values(),
        *PYPROJECT["dependency-groups"].values(),
    ]
    asked = [Requirement(each) for some in lists for each in some if isinstance(each, str)]
    floors = [each.specifier for each in asked if each.name == "mlx"]
    assert len(floors) == 5
    assert not any(floor.contains("0.32.1") for floor in floors)
    text = "".join(file.read_text() for file in (ROOT / "requirements").glob("*.txt"))
    pins = re.findall(r"^mlx(?:-cpu|-metal|-cuda-\d+)?==([\d.]+)", text, re.MULTILINE)
    assert len(pins) >= 6
    assert all(floor.contains(pin) for floor in floors for pin in pins)
