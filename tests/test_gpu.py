"""Why no GPU is used, and what would help: each machine is told its own."""

import logging
import sys
from pathlib import Path

import pytest

from embedsvc.errors import CardsError
from embedsvc.inference import device, gpu
from embedsvc.inference.device import open_device
from embedsvc.inference.gpu import unused_gpu
from embedsvc.system.mac import Mac
from tests.support.app import serve

MACS = {
    "Rosetta": (Mac(15, silicon=True, translated=True), False),
    "old": (Mac(13, silicon=True, translated=False), False),
    "without MLX": (Mac(15, silicon=True, translated=False), False),
    "without a GPU": (Mac(15, silicon=True, translated=False), True),
    "Intel": (Mac(14, silicon=False, translated=False), False),
}
"""Macs where no GPU is used, and whether MLX is installed."""
SAID = {
    "Rosetta": ("Rosetta translates this Python", "make serve PYTHON=/opt/homebrew/bin/python3.13"),
    "old": ("MLX needs macOS 14 or newer, and this is 13", "update macOS"),
    "without MLX": ("MLX is not installed", "`pip install mlx`"),
    "without a GPU": ("MLX finds no GPU", "a virtual machine may have none"),
    "Intel": ("the processor computes", "small models suit it"),
}


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of `MACS`, which has no GPU for MLX."""
    mac, installed = MACS[request.param]
    monkeypatch.setattr(gpu, "this_mac", lambda: mac)
    monkeypatch.setattr(gpu, "mlx_installed", lambda: installed)
    monkeypatch.setattr(device, "gpu_likely", lambda: False)
    return request.param


@pytest.mark.parametrize("machine", MACS, indirect=True)
def test_a_mac_that_uses_no_gpu_says_why_and_what_helps(machine: str) -> None:
    unused = unused_gpu()
    assert unused is not None
    why, hint = SAID[machine]
    assert why in unused.why
    assert hint in unused.hint
    assert unused.mendable is (machine != "Intel")
    assert "cuda" not in f"{unused}".lower()


@pytest.mark.parametrize("machine", MACS, indirect=True)
def test_a_mac_is_never_told_to_install_cuda(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embedsvc.inference.ops.mlx", None)
    with pytest.raises(CardsError) as caught:
        open_device("mlx")
    assert "cuda" not in str(caught.value).lower()
    helps = SAID[machine][1] if machine != "Intel" else "on an Intel Mac there is no MLX"
    assert helps in str(caught.value)


def test_linux_without_a_driver_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "this_mac", lambda: None)
    monkeypatch.setattr(gpu, "has_driver", lambda: False)
    assert unused_gpu() is None


@pytest.mark.parametrize("installed", [True, False])
def test_a_driver_without_a_gpu_for_mlx_is_told(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "this_mac", lambda: None)
    monkeypatch.setattr(gpu, "has_driver", lambda: True)
    monkeypatch.setattr(gpu, "mlx_installed", lambda: installed)
    unused = unused_gpu()
    assert unused is not None
    assert "there is a driver for one" in unused.why
    assert "pip install 'embedsvc[cuda]'" in unused.hint


@pytest.mark.parametrize("machine", ["Rosetta", "Intel"], indirect=True)
def test_a_server_says_at_its_start_that_a_gpu_lies_idle_if_anything_helps(
    machine: str, cards_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), serve(models=cards_file, backend="auto"):
        pass
    assert ("no GPU is used: Rosetta translates" in caplog.text) is (machine == "Rosetta")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("machine", ["old"], indirect=True)
def test_a_server_that_was_told_what_to_compute_on_is_told_no_more(
    cards_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), serve(models=cards_file, backend="numpy"):
        pass
    assert "GPU" not in caplog.text


def test_a_library_that_is_not_here_does_not_load() -> None:
    assert not gpu._loads("libno-such-driver.so.1")
