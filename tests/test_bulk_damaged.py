"""Whatever is damaged, in the way or impossible ends `embedsvc embed` and its like in one line."""

import base64
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.bulk.outputs import OUTPUTS
from embedsvc.bulk.outputs.files import beside
from embedsvc.bulk.search import search
from embedsvc.cli import main
from embedsvc.errors import BulkError
from tests.support.bulk import FakeEmbedder, go, rows_of
from tests.support.fake_server import FakeServer
from tests.support.outputs import VECTORS, write


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


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


@pytest.fixture(params=OUTPUTS)
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An output of 40 rows."""
    path = tmp_path / f"out{request.param}"
    rows: list[dict[str, Any]] = [{"id": i, "text": f"text {i}"} for i in range(40)]
    write(path, rows, VECTORS[:40])
    assert look(path) == 5
    return path


def test_an_index_that_is_cut_anywhere_is_found_out(sound: Path) -> None:
    for file in sorted(sound.parent.iterdir()):
        whole = file.read_bytes()
        for cut in sorted({*range(0, len(whole), max(len(whole) // 25, 1)), len(whole) - 2}):
            file.write_bytes(whole[:cut])
            if file == beside(sound, "rows.jsonl"):  # of which only what is found is read
                with pytest.raises(BulkError, match="is damaged: "):
                    OUTPUTS[sound.suffix].open(sound).rows([39])
            else:
                with pytest.raises(BulkError, match=f"^{sound}.*: "):
                    look(sound)
        file.write_bytes(whole)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("ending", OUTPUTS)
def test_an_index_with_any_bytes_changed_is_read_or_refused(
    ending: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"changed{ending}"
    if not path.exists():
        write(path, [{"id": i, "text": f"text {i}"} for i in range(40)], VECTORS[:40])
    file = data.draw(st.sampled_from(sorted(path.parent.glob(f"{path.name}*"))))
    whole = file.read_bytes()
    changed = bytearray(whole)
    places = st.integers(0, len(whole) - 1)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)
    ):
        changed[place] = value
    file.write_bytes(changed)
    try:
        look(path)
    except BulkError:
        pass
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "changed",
    [
        {"dimensions": 11},
        {"dimensions": -1},
        {"dimensions": 10**12},
        {"rows": 41},
        {"rows": -1},
        {"dtype": "int8"},
        {"dtype": "object"},
        {"fingerprint": "?"},
        {"fingerprint": "AAAA"},
        {"fingerprint": base64.b64encode(b"\0" * 48).decode()},
        {"fingerprint": base64.b64encode(b"\xff" * 48).decode()},
        {"model": None},
    ],
)
@pytest.mark.parametrize("ending", [".jsonl", ".npy"])
def test_an_index_that_is_not_what_is_said_of_it_is_found_out(
    tmp_path: Path, ending: str, changed: dict[str, Any]
) -> None:
    path = tmp_path / f"out{ending}"
    write(path, [{"id": i, "text": f"text {i}"} for i in range(40)], VECTORS[:40])
    about = beside(path, "about.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | changed))
    if ending == ".jsonl" and changed == {"dtype": "int8"}:
        assert look(path) == 5  # numbers of any type are numbers there
        return
    with pytest.raises(BulkError, match=f"^{path}"):
        look(path)


def npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy(np.array([{"a": 1}], object)),
        npy(VECTORS[:40].astype(np.float64)),
        npy(np.asfortranarray(VECTORS[:40])),
        npy(VECTORS[:39]),
        npy(VECTORS[:40]).replace(b"(40, 12)", b"(10**9,)"),
        npy(VECTORS[:40]) + b"x",
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000,
        b"\x93NUMPY\x03\x00" + npy(VECTORS[:40])[8:],
        b"",
    ],
)
def test_an_npy_that_is_not_the_one_that_was_written_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "out.npy"
    write(path, [{"id": i, "text": "t"} for i in range(40)], VECTORS[:40])
    path.write_bytes(content)
    with pytest.raises(BulkError, match=r"out\.npy: is damaged: "):
        look(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_vectors_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    vectors = VECTORS[:40].copy()
    path = tmp_path / "out.npy"
    write(path, [{"id": i, "text": "t"} for i in range(40)], vectors)
    vectors[7] = value
    content = path.read_bytes()
    path.write_bytes(content[: -vectors.nbytes] + vectors.tobytes())
    with pytest.raises(BulkError, match="is damaged: vector 8 is not finite"):
        look(path)


def test_parquet_with_other_columns_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write(path, [{"id": i, "text": "t"} for i in range(2)], VECTORS[:2])
    metadata = pq.read_schema(path).metadata
    good = pq.read_table(path)
    vectors = good["embedding"].combine_chunks()
    for columns in (
        {"id": good["id"], "text": good["text"]},
        {"id": good["id"], "embedding": vectors},
        {"id": good["id"], "text": good["text"], "embedding": vectors.cast(pa.list_(pa.float32()))},
        {"id": good["id"], "text": good["text"], "embedding": pa.array([None, None], vectors.type)},
    ):
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
        with pytest.raises(BulkError, match=r"out\.parquet: is damaged: "):
            look(path)


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


def test_what_is_printed_to_a_full_disk_or_a_closed_pipe_ends_in_one_line(
    folder: Path, fake: FakeServer
) -> None:
    go(FakeEmbedder(), folder / "index.npy", folder / "in.jsonl")
    line = ("search", "index.npy", "text", "-k", "50", "--url", fake.url)
    with Path("/dev/full").open("w") as full:
        done = run(*line, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "embedsvc: [Errno 28] No space left on device\n"
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
