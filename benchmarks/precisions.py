"""Products and passes of the kernels in C in each precision: python -m benchmarks.precisions.

First, products of some rows with a layer's weights on one core: billions of multiplications a
second, and their share of what the core does in a loop of the instruction that multiplies and of
nothing else. Then passes of the default model on all cores, and on one: tokens a second. Precisions
take turns, and the best of some rounds counts. It needs a C compiler, and shares need AVX-512.
"""

import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.commands.model_options import card_named
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.native import NativeOps, library

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
INSTRUCTIONS: dict[Dtype, tuple[str, str, int]] = {
    "float32": ("AVX-512", "vfmadd231ps", 16),
    "bfloat16": ("AVX512-BF16", "vdpbf16ps", 32),
    "int8": ("AVX512-VNNI", "vpdpbusd", 64),
}
"""What has it, the instruction, and how many numbers one multiplies."""
LAYERS = ((384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768))
ROWS = (16, 128, 512)
SHAPES = {"1x16": [16], "32x16": [16] * 32, "32x32": [32] * 32, "8x256": [256] * 8}
ROUNDS, PRODUCTS = 20, 6
LOOP = r"""
#include <stdio.h>
#include <time.h>
typedef float vec __attribute__((vector_size(64)));
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
#define ONE(sum) __asm__ volatile("INSTRUCTION %1, %1, %0" : "+v"(sum) : "v"(x));
int main(void) {
    vec x = {0}, a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, i = x, j = x, k = x, l = x;
    double best = 1e9;
    for (int round = 0; round < 50; round++) {
        double began = now();
        for (int n = 0; n < 100000; n++) {
            ONE(a) ONE(b) ONE(c) ONE(d) ONE(e) ONE(f) ONE(g) ONE(h) ONE(i) ONE(j) ONE(k) ONE(l)
        }
        double took = now() - began;
        best = took < best ? took : best;
    }
    printf("%g\n", 12e5 / best);
}
"""


def main() -> None:
    """Print both tables."""
    kernels = library.load().kernels[0]
    print(f"{kernels.name} kernels, bfloat16 by {kernels.bfloat16}, int8 by {kernels.int8}\n")
    there = {kernels.name, kernels.bfloat16, kernels.int8}
    peaks = {d: peak(d) for d in DTYPES if INSTRUCTIONS[d][0] in there}
    print("billions of multiplications a second on one core, and the share of the instruction's")
    for (inputs, outputs), rows in product(LAYERS, ROWS):
        speeds = in_turn({d: product_of(d, inputs, outputs, rows) for d in DTYPES})
        cells: list[str] = []
        for dtype, seconds in speeds.items():
            speed = rows * inputs * outputs / seconds
            share = f" {speed / peaks[dtype]:4.0%}" if dtype in peaks else ""
            cells.append(f"{dtype} {speed / 1e9:6.1f}{share}")
        print(f"{rows:4} rows x {inputs:4} x {outputs:4}: {'   '.join(cells)}", flush=True)
    for cores in (1, None):
        print(f"\ntokens a second on {'one core' if cores else 'all cores'}")
        passes(cores)


def peak(dtype: Dtype) -> float:
    """Multiplications a second of the instruction that does them, in a loop that does no more."""
    _, instruction, numbers = INSTRUCTIONS[dtype]
    with TemporaryDirectory() as folder:
        source, program = Path(folder, "loop.c"), Path(folder, "loop")
        source.write_text(LOOP.replace("INSTRUCTION", instruction), encoding="utf-8")
        subprocess.run(["cc", "-O2", "-mavx512f", str(source), "-o", str(program)], check=True)
        return numbers * float(subprocess.check_output([str(program)]))


def product_of(dtype: Dtype, inputs: int, outputs: int, rows: int) -> Callable[[], float]:
    """A function that returns the seconds of one product, out of several in one pass."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, inputs)).astype(np.float32)
    ops = NativeOps(1, dtype=dtype)
    layer = ops.linear_layer(random.normal(size=(outputs, inputs)).astype(np.float32), None)

    def run(count: int, ops: Any, batch: Batch) -> Any:
        table = ops.embedding(x, batch.ids)
        results = [ops.linear(table, layer) for _ in range(count)]
        return ops.pool(results[-1], batch.layout, ["cls"])

    few, many = (ops.compiled(partial(run, count)) for count in (1, 1 + PRODUCTS))
    batch = ops.batch([np.arange(rows, dtype=np.int32)])
    return lambda: (seconds(lambda: many(batch)) - seconds(lambda: few(batch))) / PRODUCTS


def passes(cores: int | None) -> None:
    """Print how fast passes of the default model are."""
    checkpoint = open_checkpoint(card_named(None, None))
    encoders = {d: load_encoder(NativeOps(cores, dtype=d), checkpoint) for d in DTYPES}
    for name, lengths in SHAPES.items():
        random = np.random.default_rng(0)
        texts = [random.integers(1000, 30000, n).astype(np.int32) for n in lengths]
        ways = {
            d: partial(seconds, partial(encoder.encode, texts)) for d, encoder in encoders.items()
        }
        best = in_turn(ways)
        cells = [f"{d} {sum(lengths) / best[d]:7.0f} ({best[d] * 1e3:.2f} ms)" for d in DTYPES]
        print(f"{name:>6}: {'   '.join(cells)}", flush=True)


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes, at best: a call that was interrupted says nothing."""
    took: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        function()
        took.append(time.perf_counter() - began)
    return min(took)


def in_turn(ways: dict[Dtype, Callable[[], float]]) -> dict[Dtype, float]:
    """The least of what each gives in some rounds, in which they take turns."""
    found = [{dtype: way() for dtype, way in ways.items()} for _ in range(ROUNDS)]
    return {dtype: min(each[dtype] for each in found) for dtype in ways}


if __name__ == "__main__":
    main()
