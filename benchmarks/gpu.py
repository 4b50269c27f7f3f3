"""The forward pass on a GPU, without a server: python -m benchmarks.gpu --help.

embedsvc on MLX beside transformers and sentence-transformers on torch, each in a process of its
own, on texts of given lengths; the same seeded token ids for all.
"""

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoints import SIZES, write_random
from benchmarks.model import ROOT
from benchmarks.setup import installed_model

SHAPES = "1x16,1x128,32x16,32x32,32x128,256x32,256x128,64x512,mixed"
MIXED = np.exp(np.random.default_rng(3).uniform(np.log(5), np.log(256), 512)).astype(int).tolist()
SWITCHES: dict[str, dict[str, bool]] = {
    "": {},
    "fused": {"plain": False, "compile": True},
    "plain": {"plain": True, "compile": True},
    "wide heads": {"plain": False, "double_heads": True, "compile": True},
    "not compiled": {"compile": False},
}
"""The ways that embedsvc tries when it loads a model: its choice, and each one by itself."""
Row = dict[str, Any]


def main() -> int:
    """Measure, print and write."""
    given = _parser().parse_args()
    shapes = {name: _lengths(name) for name in given.shapes.split(",")}
    rows: list[Row] = []
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, (given.out / "gpu.jsonl").open("w") as lines:
        for model in given.models.split(","):
            folder = installed_model()
            if model != "minilm":
                folder = write_random(Path(scratch) / model, folder, *SIZES[model])
            config = json.loads((folder / "config.json").read_text())
            for job in _jobs(given, model):
                job |= {"folder": str(folder), "shapes": shapes, "seconds": given.seconds}
                for row in _run(given, job):
                    row |= {name: job[name] for name in ("engine", "dtype", "way")}
                    row["model"] = model
                    if "failed" not in row:
                        row |= _of_shape(config, shapes[row["shape"]])
                    rows.append(row)
                    lines.write(json.dumps(row) + "\n")
                    lines.flush()
                    print(_line(row), flush=True)
    table = _table(rows)
    (given.out / "gpu.md").write_text(table, encoding="utf-8")
    print(f"\n{table}")
    return 0 if any("alone_ms" in row for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Measure forward passes on a GPU.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--models", default="minilm", help=f"minilm, the real one, or {', '.join(SIZES)}, random")
    add("--shapes", default=SHAPES, help="texts x tokens in each; mixed is 512 of 5 to 256")
    add("--dtypes", default="float16,float32")
    add("--ways", action="store_true", help="also embedsvc with each of its switches set")
    add("--seconds", type=float, default=0.5, help="for each shape")
    add("--torch", help="an interpreter that has torch and sentence-transformers")
    add("--size", type=int, default=8192, help="of the product that tells the device's speed")
    add("--out", type=Path, default=Path("benchmarks/results"), help="where results go")
    return parser


def _lengths(shape: str) -> list[int]:
    if shape == "mixed":
        return MIXED
    texts, tokens = map(int, shape.split("x"))
    return [tokens] * texts


def _jobs(given: argparse.Namespace, model: str) -> Iterator[Row]:
    for dtype in given.dtypes.split(","):
        job = {"dtype": dtype, "switches": {}, "size": given.size, "way": ""}
        if given.torch:
            yield job | {"engine": "transformers"}
            if model == "minilm":
                yield job | {"engine": "sentence_transformers"}
        for way in SWITCHES if given.ways else [""]:
            yield job | {"engine": "embedsvc", "way": way, "switches": SWITCHES[way]}


def _run(given: argparse.Namespace, job: Row) -> Iterator[Row]:
    """The rows of one process; if it broke off, the last one says why."""
    python = sys.executable if job["engine"] == "embedsvc" else given.torch
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [python, "-m", "benchmarks.passes", json.dumps(job)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
        if process.wait():
            said.seek(0)
            yield {"failed": (said.read().strip().splitlines() or ["it said nothing"])[-1][:300]}


def _of_shape(config: Row, lengths: list[int]) -> Row:
    """How many tokens there are, and how many operations the model needs for them."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    tokens, pairs = sum(lengths), sum(n * n for n in lengths)
    products = tokens * (8 * width * width + 4 * width * inner) + 4 * width * pairs
    return {"tokens": tokens, "needed_flops": config["num_hidden_layers"] * products}


def _line(row: Row) -> str:
    name = f"{row['model']:<10} {row['engine']:<22} {row['dtype']:<8} {row['way']:<12}"
    if "failed" in row:
        return f"{name} failed: {row['failed']}"
    alone, stream = row["alone_ms"], row["stream_ms"]
    return (
        f"{name} {row['shape']:<8} alone {alone:9.3f} ms, in a stream {stream:9.3f} ms,"
        f" {row['tokens'] / stream * 1000:12,.0f} tokens/s, {_share(row):4.0%} of"
        f" {row['flops'] / 1e12:.1f} TFLOP/s; first {row['first_ms']:.0f} ms"
    )


def _share(row: Row) -> float:
    """The share of the device's speed at large products that the pass reaches."""
    return row["needed_flops"] / (row["stream_ms"] / 1000) / row["flops"]


def _table(rows: list[Row]) -> str:
    """Milliseconds alone and in a stream: a column for each engine, a row for each shape."""
    done = [row for row in rows if "failed" not in row]
    columns = list(dict.fromkeys((row["engine"], row["dtype"], row["way"]) for row in done))
    text = []
    for model in dict.fromkeys(row["model"] for row in done):
        found = {
            (row["shape"], row["engine"], row["dtype"], row["way"]): row
            for row in done
            if row["model"] == model
        }
        head = [" ".join(part for part in column if part) for column in columns]
        text += [f"| {model}: alone / stream ms | " + " | ".join(head) + " | cosine |"]
        text += ["|---|" + "---:|" * (len(columns) + 1)]
        for shape in dict.fromkeys(key[0] for key in found):
            cells = [found.get((shape, *column)) for column in columns]
            shown = [f"{c['alone_ms']:.2f} / {c['stream_ms']:.2f}" if c else "-" for c in cells]
            text += [f"| {shape} | " + " | ".join(shown) + f" | {_near(cells)} |"]
        text.append("")
    devices = dict.fromkeys(f"{row['engine']}: {row['device']}" for row in done)
    return "\n".join([*text, *devices, ""])


def _near(cells: list[Row | None]) -> str:
    """The least cosine between the vectors of the first text in the columns."""
    vectors = [np.frombuffer(base64.b64decode(cell["vector"]), "<f4") for cell in cells if cell]
    normed = np.stack([vector / np.linalg.norm(vector) for vector in vectors])
    return f"{(normed @ normed.T).min():.6f}"


if __name__ == "__main__":
    sys.exit(main())
