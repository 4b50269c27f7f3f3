"""The kernels for Arm, built by Debian's cross compiler and run in qemu: `make test-kernels`.

They run passes that were recorded on this machine, as they are shipped; their products in lower
precisions besides under sanitizers. qemu has processors that lack one or the other instruction.
"""

import os
import subprocess
from pathlib import Path

import pytest

import hatch_build
from tests.kernels.recording import record
from tests.support.c_programs import DOTS, build
from tests.support.programs import program
from tests.support.project import ROOT
from tests.support.quantized_cases import QUANTIZED, wide_case
from tests.support.tiny import CASES

COMPILER = "aarch64-linux-gnu-gcc"
LIBRARIES = "/usr/aarch64-linux-gnu"
WIDE = {"bert": wide_case("bert")}
"""Its layers are wide enough for lower precisions."""
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
PROCESSORS = {
    "cortex-a57": {"NEON"},
    "neoverse-n1": {"SDOT", "NEON"},
    "max": {"BFDOT", "SDOT", "NEON"},
}
"""As qemu calls them, and what products in lower precisions may be computed by there."""


def emulated(processor: str, *command: Path) -> str:
    """What a program prints on that processor."""
    done = subprocess.run(
        [program("qemu-aarch64"), "-cpu", processor, "-L", LIBRARIES, *map(str, command)],
        env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("arm") / "dots"
    return build(output, *SANITIZED, sources=DOTS, compiler=COMPILER)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `recorded.c`, beside the library."""
    folder = tmp_path_factory.mktemp("arm")
    library = folder / "kernels.so"
    assert hatch_build.build([program(COMPILER)], library)
    sources = [ROOT / "tests/kernels/recorded.c", library]
    found_there = f"-Wl,-rpath,{folder}"
    return build(folder / "recorded", "-O1", found_there, sources=sources, compiler=COMPILER)


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A file of passes, and how many they are."""
    file = tmp_path_factory.mktemp("passes") / "passes"
    return file, record(file, {"float32": CASES | QUANTIZED, "bfloat16": WIDE, "int8": WIDE})


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_way_to_multiply_is_right(dots: Path, processor: str) -> None:
    *ways, end = emulated(processor, dots).splitlines()
    assert {way.split()[0] for way in ways} == PROCESSORS[processor]
    assert end == "what is wrong is not used"


@pytest.mark.parametrize("processor", ["neoverse-n1", "max"])
def test_passes_are_those_of_the_processor_that_they_were_recorded_on(
    recorded: Path, passes: tuple[Path, int], processor: str
) -> None:
    file, count = passes
    lines = emulated(processor, recorded, file).splitlines()
    names = [line.split()[0].split(";") for line in lines]
    assert {way for _, *ways, _ in names for way in ways} == PROCESSORS[processor]
    assert all(name == "NEON" and not distrusted for name, *_, distrusted in names)
    assert count > len(CASES)  # but those that run on NumPy
    assert all(f" {count} passes" in line for line in lines)
