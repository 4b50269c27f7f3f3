"""What the processor is called, on Linux and on a Mac."""

from pathlib import Path

import pytest

from embedsvc.system import processor
from embedsvc.system.processor import Processor, this_processor


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that says nothing of its processor."""
    monkeypatch.setattr(processor, "sysctl_text", lambda _: None)
    monkeypatch.setattr(processor, "sysctl_number", lambda _: None)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    return tmp_path / "cpuinfo"


def test_linux_has_the_name_in_a_file(machine: Path) -> None:
    machine.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.60GHz\nserial\t: 1234\n" * 2)
    assert this_processor() == Processor("Some CPU @ 2.60GHz", None, None)


def test_without_a_name_it_is_called_by_its_architecture(machine: Path) -> None:
    assert this_processor().name == "aarch64"
    machine.write_text("processor\t: 0\nBogoMIPS\t: 48.00\nSerial\t: 1234\n")
    assert this_processor().name == "aarch64"


def test_a_mac_has_fast_and_slow_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"hw.perflevel0.physicalcpu": 8, "hw.perflevel1.physicalcpu": 2}
    monkeypatch.setattr(processor, "sysctl_text", {"machdep.cpu.brand_string": "Apple M1 Pro"}.get)
    monkeypatch.setattr(processor, "sysctl_number", numbers.get)
    assert this_processor() == Processor("Apple M1 Pro", 8, 2)
