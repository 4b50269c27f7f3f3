"""The benchmarks still fit the package that they measure; they are run by hand."""

import importlib
import sys

import pytest

from tests.support.project import ROOT

MODULES = [f"benchmarks.{file.stem}" for file in sorted((ROOT / "benchmarks").glob("[!_]*.py"))]
COMMANDS = ["__main__", "gpu", "instances", "overload", "ray_workers", "rerank", "soak", "stall"]


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_line_says_what_it_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out
