"""Whatever is in the way or impossible ends `embedsvc embed` and its like in one line."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.bulk.outputs import OUTPUTS
from embedsvc.bulk.search import search
from embedsvc.cli import main
from tests.support.bulk import FakeEmbedder, go, rows_of
from tests.support.fake_server import FakeServer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with `in.jsonl`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text(rows_of(50))
    return tmp_path


def look(path: Path) -> int:
    """Search an output; how many rows are found."""
    index = OUTPUTS[path.suffix].open(path)
    vector = np.ones(index.manifest.dimensions, np.float32)
    return len(search(index, vector, 5))


HOSTILE = [
    "",
    " ",
    "\x1b[2J",
    "\n",
    "a" * 300,
    "-1",
    "ü",
    "\udcff",
    "/dev/zero/x",
    "~",
    "{0}",
    "--",
]
HOSTILE += ["9" * 5000]
MODEL = ["--model", "--models", "--backend", "--api-key", "--parallel", "--url", "--prompt"]
OPTIONS = {
    "embed": [
        *("--column", "--id-column", "--keep", "--delimiter", "--quote", "--format", "--output"),
        *("--input-type", "--dimensions", "--dtype", "--truncate", "--chunking", *MODEL),
    ],
    "search": [*MODEL, "-k"],
    "similarity": [*MODEL, "--input-type", "--dimensions", "--lines"],
}


@pytest.mark.parametrize(
    ("command", "option"), [(command, one) for command, some in OPTIONS.items() for one in some]
)
def test_hostile_arguments_end_in_one_line(
    folder: Path,
    fake: FakeServer,
    command: str,
    option: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    go(FakeEmbedder(), folder / "index.npy", folder / "in.jsonl")
    line = {
        "embed": ["in.jsonl", "--output", "out.jsonl", "--overwrite"],
        "search": ["index.npy", "text"],
        "similarity": ["one", "two"],
    }[command]
    for value in HOSTILE:
        code = end(command, *line, "--url", fake.url, f"{option}={value}")
        said = capsys.readouterr().err
        assert code == 2 or "\x1b" not in said  # 2: argparse shows what was typed


def end(*arguments: str) -> int:
    """The exit code of a command, which must be one that is documented."""
    try:
        code = main(list(arguments))
    except SystemExit as error:  # argparse's
        code = error.code if isinstance(error.code, int) else 1
    assert code in (0, 1, 2, 3, 4, 6), arguments
    return code


@pytest.mark.parametrize("command", ["embed", "search", "similarity"])
def test_hostile_files_end_in_one_line(
    folder: Path, fake: FakeServer, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "sub").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "binary.jsonl").write_bytes(os.urandom(3000))
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "dir.npy").mkdir()
    go(FakeEmbedder(), folder / "index.npy", folder / "in.jsonl")
    (folder / "index.npy.rows.jsonl").write_text("")
    names = [path.name for path in folder.iterdir()]
    for name, ending in itertools.product([*HOSTILE, *names], ["", ".jsonl", ".NPY"]):
        path = f"./{name}{ending}"
        options = ("--url", fake.url)
        if command == "embed":
            end("embed", path, "--output", "new.jsonl", "--overwrite", *options)
            if "in.jsonl" not in path:
                end("embed", "in.jsonl", "--output", path, *options)
        elif command == "search":
            end("search", path, "text", *options)
        else:
            end("similarity", "--lines", path, *options)
    capsys.readouterr()


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedsvc", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=50, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a device that is full")
def test_what_is_printed_to_a_full_disk_ends_in_one_line(folder: Path, fake: FakeServer) -> None:
    go(FakeEmbedder(), folder / "index.npy", folder / "in.jsonl")
    with Path("/dev/full").open("w") as full:
        done = run("search", "index.npy", "text", "-k", "50", "--url", fake.url, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "embedsvc: [Errno 28] No space left on device\n"


def test_what_is_printed_to_a_closed_pipe_ends_without_a_word(
    folder: Path, fake: FakeServer
) -> None:
    go(FakeEmbedder(), folder / "index.npy", folder / "in.jsonl")
    line = ("search", "index.npy", "text", "-k", "50", "--url", fake.url)
    reads, writes = os.pipe()
    os.close(reads)
    done = run(*line, stdout=writes)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_without_all_characters_has_escapes(folder: Path, fake: FakeServer) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    line = ("similarity", "猫", "\x1b[2J", "--url", fake.url)
    done = run(*line, stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\\u732b" in done.stdout
    assert "\x1b" not in done.stdout


FILLING = """
import asyncio, io, resource, signal, sys
from pathlib import Path
from embedsvc.bulk.job import Job, Run
from embedsvc.bulk.progress import Progress
from embedsvc.errors import BulkError
from tests.support.bulk import FakeEmbedder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
output = Path(sys.argv[1])
for most in (10, 400, 3000, 9000, 20_000, 40_000, 1 << 30):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        with Run(Job(inputs=("in.jsonl",), output=output), Progress(io.StringIO())) as run:
            summary = asyncio.run(run.embed(FakeEmbedder()))
            run.write_output(summary.manifest)
    except BulkError as error:
        assert not output.exists()
        print(str(error).partition(": ")[2])
    else:
        print("done")
        break
"""


@pytest.mark.parametrize("ending", OUTPUTS)
def test_a_disk_that_fills_up_at_any_moment_loses_nothing(folder: Path, ending: str) -> None:
    """A limit on the size of files, which is met in the partial output or in the output itself."""
    (folder / "in.jsonl").write_text(rows_of(500))
    command = [sys.executable, "-c", FILLING, f"out{ending}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    *failed, last = done.stdout.splitlines()
    assert len(failed) > 2
    assert set(failed) == {"File too large"}
    assert last == "done"
    assert look(folder / f"out{ending}") == 5
    assert not [*folder.glob("*partial"), *folder.glob(".*unfinished")]
