"""`embedsvc embed` needs no more memory for a long file than for a short one."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS, CARRIED = 24_000, 8_000
MIB = 1 << 20
GROWTH = 88 * MIB
"""What is in memory at a time, above all two row groups of Parquet, and what malloc keeps."""

RUN = """
import resource, sys
from pathlib import Path
from embedsvc.cli import main

def peak():  # of this process alone: what getrusage says on Linux begins with the parent's
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

def embed(file):
    output = f"{file}{sys.argv[3]}"
    options = ["--backend", "numpy", "--keep", "carried", "--output", output]
    assert main(["embed", file, *options]) == 0
    return peak()

print(-embed(sys.argv[1]) + embed(sys.argv[2]))
"""


def write(path: Path, rows: int) -> None:
    """Short texts, each with many bytes that are carried along."""
    records = (
        {"text": f"hello {i} {i % 97}", "carried": f"{i:08} " * (CARRIED // 9)} for i in range(rows)
    )
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        return
    some = list(records)
    pq.write_table(pa.Table.from_pylist(some), path, row_group_size=4000, compression="none")


@pytest.mark.parametrize(("ending", "output"), [(".jsonl", ".parquet"), (".parquet", ".npy")])
def test_memory_grows_by_a_bound_that_the_file_is_far_above(
    tmp_path: Path, tiny_folder: Path, ending: str, output: str
) -> None:
    (tmp_path / "models.toml").write_text(f"[models.tiny]\npath = '{tiny_folder}'\n")
    short, long = tmp_path / f"short{ending}", tmp_path / f"long{ending}"
    write(short, ROWS // 10)
    write(long, ROWS)
    assert long.stat().st_size > 2 * GROWTH
    command = [sys.executable, "-c", RUN, short.name, long.name, output]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.splitlines()[-1])
    assert grown < GROWTH, f"{grown / MIB:.0f} MiB for {long.stat().st_size / MIB:.0f} MiB"
