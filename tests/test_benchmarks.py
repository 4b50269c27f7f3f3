"""The benchmarks still fit the package that they measure; they are run by hand."""

import importlib
import sys
from typing import Any

import pytest

from benchmarks.chart import draw
from benchmarks.peers import EXPORTS, MAKERS, PEERS
from benchmarks.report import add_up, markdown
from benchmarks.wrapper import ENGINES
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


SERVERS = {
    "embedsvc": (200.0, 1.0),
    "embedsvc-int8": (500.0, 0.998),
    "openvino-int8": (250.0, 0.97),
    "onnxruntime": (100.0, 1.0),
}
"""Texts a second of servers, and the least cosine of their vectors."""


def rows() -> list[dict[str, Any]]:
    """What a run of one round writes."""
    found: list[dict[str, Any]] = [{"kind": "limit", "round": 0, "tokens_per_second": 1e4}]
    for name, (rate, cosine) in SERVERS.items():
        same: dict[str, Any] = {"server": name, "round": 0}
        near = {"vectors": "right", "least_cosine": cosine, "mean_cosine": cosine + 0.0001}
        found.append(same | {"kind": "server", "start_seconds": 1.0, "resident_mib": 100.0} | near)
        times = dict.fromkeys(("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"), 5.0)
        rates = {"requests_per_second": rate, "texts_per_second": rate}
        counts = {"tokens_per_second": 16 * rate, "load_cpu_share": 0.1, "errors": {}, "wrong": {}}
        shape = {"kind": "shape", "shape": "single", "peak_mib": 120.0, "usage_share": 1.0}
        found.append(same | shape | times | rates | counts)
    return found


def test_servers_are_compared_with_this_one_in_their_own_precision() -> None:
    summary = add_up(rows(), list(SERVERS), "some-model")
    lines = [
        [cell.strip() for cell in line.split("|")][1:-1]
        for line in markdown(summary).splitlines()
        if line.startswith("|")
    ]
    assert lines[0][:2] == ["texts/s", "single"]
    assert lines[0][-1] == "cosine, mean / worst"
    assert [(line[0], line[1], line[-1]) for line in lines[2:]] == [
        ("**embedsvc**", "**200**", "1.00010 / 1.00000"),
        ("onnxruntime", "100 (2.00×)", "1.00010 / 1.00000"),
        ("**embedsvc-int8**", "**500**", "0.99810 / 0.99800"),
        ("openvino-int8", "250 (2.00×)", "0.97010 / 0.97000"),
    ]


def test_the_chart_has_a_bar_for_each_server_precisions_side_by_side() -> None:
    drawn = draw(add_up(rows(), list(SERVERS), "some-model"))
    bars = [line.split('"')[1] for line in drawn.splitlines() if line.startswith("<rect")]
    assert bars == ["ours float32", "peer float32", "ours int8", "peer int8"]


def test_every_peer_has_an_engine_and_what_its_files_need() -> None:
    for peer in PEERS.values():
        if "{here}/wrapper.py" in peer.command:
            assert peer.command[2] in ENGINES
        assert all(EXPORTS[kind][1] in MAKERS for kind in peer.needs)
