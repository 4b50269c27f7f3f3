"""A report as people read it."""

import pytest

from embedsvc.diagnosis.report import (
    Backend,
    Load,
    Longest,
    Machine,
    Memory,
    Model,
    Parity,
    Report,
)
from embedsvc.diagnosis.report.written import about_machine, about_model, in_markdown

MAC = Machine(
    system="macOS 14.5",
    processor="Apple M1",
    architecture="arm64",
    model="Macmini9,1",
    cores=8,
    usable_cores=8,
    fast_cores=4,
    slow_cores=4,
    memory_bytes=8 << 30,
    usable_memory_bytes=8 << 30,
    translated=False,
)
METAL = Backend("mlx", "float16", "Apple M1 (Metal)", 5_726_634_188, 4_008_643_931)
VERSIONS = {"embedsvc": "0.1.0", "python": "3.13.1", "mlx": "0.32.4"}


def report(*models: Model, quick: bool = False, interrupted: bool = False) -> Report:
    return Report(VERSIONS, MAC, METAL, quick, list(models), interrupted)


def test_a_mac_is_told_by_its_kind_its_cores_and_its_memory() -> None:
    said = dict(about_machine(report()))
    assert said["processor"] == "Apple M1, Macmini9,1, arm64"
    assert said["cores"] == "8 of 8, 4 fast and 4 slow"
    assert said["memory"] == "8.0 GiB"
    assert said["for models"] == "3.7 GiB of 5.3 GiB"
    assert said["versions"] == "python 3.13.1, mlx 0.32.4"
    assert "GPU" not in said
    MAC.translated, MAC.usable_memory_bytes = True, 4 << 30
    try:
        said = dict(about_machine(report()))
    finally:
        MAC.translated, MAC.usable_memory_bytes = False, 8 << 30
    assert said["processor"].endswith("arm64, Python translated by Rosetta")
    assert said["memory"] == "8.0 GiB, 4.0 GiB for this process"


def test_a_gpu_that_is_not_used_is_told_with_the_reason() -> None:
    cpu = Backend("native", "float32", "arm64 CPU", 8 << 30, 4 << 30, "MLX finds no GPU")
    said = dict(about_machine(Report(VERSIONS, MAC, cpu, quick=False)))
    assert said["GPU"] == "not used: MLX finds no GPU"


def test_what_was_not_measured_is_not_told() -> None:
    assert about_model(Model("m")) == []
    assert about_model(Model("m", error="gone")) == [("ERROR", "gone")]


def test_memory_is_told_of_the_process_and_of_mlx() -> None:
    memory = {"before": Memory(10**6, 0), "loaded": Memory(None, 2 * 10**6)}
    said = dict(about_model(Model("m", memory=memory)))
    assert said["memory"] == "1 MB before, ? loaded"
    assert said["MLX's memory"] == "0 bytes before, 2 MB loaded"


def test_a_long_text_that_is_not_the_longest_says_so() -> None:
    assert about_model(Model("m", longest=Longest(4096, 32768, 12.34))) == [
        ("longest text", "4096 tokens of 32768: 12.34 s")
    ]


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (Model("m", parity=[Parity("finite", True, "yes"), Parity("equal", None, "?")]), False),
        (Model("m", parity=[Parity("finite", False, "no")]), True),
        (Model("m", loads=[Load("single", 1.0, 1.0, 1.0, 1.0, errors=1)]), True),
        (Model("m", error="gone"), True),
    ],
)
def test_a_model_is_wrong_where_anything_of_it_is(model: Model, wrong: bool) -> None:
    assert model.wrong is wrong
    marks = " ".join(found for _, found in about_model(model))
    assert wrong is ("WRONG" in marks or marks == "gone")


def test_markdown_is_as_it_was_meant_whatever_a_text_contains() -> None:
    broken = Model("a|b", error="`config.json`:\n<b> is_not | a *list*")
    text = in_markdown(report(broken, quick=True, interrupted=True))
    assert "#### a\\|b\n" in text
    assert "| ERROR | \\`config.json\\`: \\<b\\> is\\_not \\| a \\*list\\* |\n" in text
    assert "\nquick: without pauses of more than a second.\n" in text
    assert "\ninterrupted, so that something is missing.\n" in text
    assert text.count("```") == 2
