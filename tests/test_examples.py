"""The examples in the docstrings of the package, run."""

import doctest
import importlib
import os
import re

import pytest

from tests.support.project import modules

OPTIONAL = {"mlx", "pyarrow", "ray"}  # an extra installs them, or one kind of machine
EXAMPLE = re.compile(r"^ *>>> ", re.MULTILINE)


def examples() -> dict[str, int]:
    """How many examples each module has, of those that have any."""
    counts = {
        name: len(EXAMPLE.findall(file.read_text(encoding="utf-8")))
        for name, file in modules().items()
    }
    return {name: count for name, count in counts.items() if count}


def test_there_are_examples() -> None:
    assert examples()


@pytest.mark.parametrize(("name", "count"), examples().items(), ids=examples())
def test_every_example_gives_what_its_docstring_says(name: str, count: int) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL or "CI" in os.environ:  # .ci/run installs them
            raise
        pytest.skip(f"{error.name} is not installed")
    found = doctest.testmod(module)
    assert not found.failed
    assert found.attempted == count, "an example stands where doctest does not look"
