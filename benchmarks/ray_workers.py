"""One process beside Ray Data's workers and Ray Serve's replicas, on the cores of this machine.

    .venv/extras/bin/python -m benchmarks.ray_workers --model FOLDER --workers 2 --rows 6000

FOLDER has the checkpoint, as that environment has no model. All get the same texts of 12 words. The
process has all cores, each worker its share of them: what differs is what Ray takes. Seconds are of
whole runs, from the start of the process or the workers; the replicas are up before.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedsvc.bench.texts import SHAPES, make_text
from embedsvc.ray_data import Pool, Stage, connect, embed_parquet
from embedsvc.ray_serve import Scale, application
from embedsvc.settings import Settings
from embedsvc.system import machine

PORT = 8478
FILES = 4
"""How many files of the corpus there are for each worker."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cards = Path(folder) / "models.toml"
        cards.write_text(f"[models.model]\npath = '{given.model.resolve()}'\npreload = true\n")
        settings = Settings(models=cards, cores=max(1, machine.cores().usable // given.workers))
        corpus, out = Path(folder) / "corpus", Path(folder) / "out"
        names = write(corpus, given.rows, FILES * given.workers)
        connect(2 * given.workers)
        from ray import serve

        for number in range(given.rounds):
            began = time.perf_counter()
            embed(names, out / f"process{number}.parquet", "--models", str(cards))
            report("one process", given.rows, began)
            began = time.perf_counter()
            stage = Stage(settings=settings)
            pool = Pool(least=given.workers, most=given.workers)
            embed_parquet(str(corpus), out / f"data{number}", "n", stage, pool)
            report(f"Ray Data, {given.workers} workers", given.rows, began)
            serve.start(http_options={"host": "127.0.0.1", "port": PORT})
            scale = Scale(min_replicas=given.workers, max_replicas=given.workers)
            serve.run(application(settings, scale))
            began = time.perf_counter()
            url = f"http://127.0.0.1:{PORT}/v1"
            embed(names, out / f"serve{number}.parquet", "--url", url, "--parallel", "8")
            report(f"Ray Serve, {given.workers} replicas", given.rows, began)
            serve.shutdown()
            compare(out, number)


def write(corpus: Path, rows: int, files: int) -> list[str]:
    """Write Parquet files with the columns `n` and `text`."""
    corpus.mkdir()
    (corpus.parent / "out").mkdir()
    rng = random.Random(1)
    texts = [make_text(rng, SHAPES["bulk"])[0] for _ in range(rows)]
    step = -(-rows // files)
    names: list[str] = []
    for first in range(0, rows, step):
        some = texts[first : first + step]
        table = pa.table({"n": range(first, first + len(some)), "text": some})
        names.append(str(corpus / f"{first:09}.parquet"))
        pq.write_table(table, names[-1])
    return names


def embed(names: list[str], output: Path, *options: str) -> None:
    """Run `embedsvc embed` in a process of its own."""
    arguments = ["embed", *names, "--id-column", "n", "--output", str(output), *options]
    command = [sys.executable, "-m", "embedsvc", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def report(way: str, rows: int, began: float) -> None:
    seconds = time.perf_counter() - began
    print(f"{way}: {rows:,} texts in {seconds:.1f} s, {rows / seconds:,.0f} texts/s", flush=True)


def compare(out: Path, number: int) -> None:
    """Print how far apart the vectors of the three ways are."""
    process = read(out / f"process{number}.parquet", "id")
    for way, name, key in (("Ray Data", "data", "n"), ("Ray Serve", "serve", "id")):
        path = next(out.glob(f"{name}{number}*"))
        apart = np.abs(read(path, key) - process).max()
        print(f"{way}: vectors at most {apart:.1e} apart from the process's", flush=True)


def read(path: Path, key: str) -> np.ndarray:
    table = pq.read_table(path).sort_by(key)
    return np.stack(table["embedding"].to_numpy())


if __name__ == "__main__":
    main()
