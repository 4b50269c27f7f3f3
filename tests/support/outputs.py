"""Outputs of `embedsvc embed`, written from given rows and vectors."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.dtypes import Stored, store
from embedsvc.bulk.manifest import Manifest, encode_probe
from embedsvc.bulk.outputs import OUTPUTS

VECTORS: NDArray[np.float32] = np.random.default_rng(5).normal(size=(1000, 12)).astype(np.float32)
ROWS = [{"id": i, "text": f"text {i}", "note": None if i % 3 else f"n{i}"} for i in range(1000)]


def write(
    path: Path,
    rows: list[dict[str, Any]] = ROWS,
    vectors: NDArray[np.float32] = VECTORS,
    dtype: Stored = "float32",
    block: int = 64,
) -> Manifest:
    output = OUTPUTS[path.suffix]
    about = Manifest("m", encode_probe(vectors[0]), vectors.shape[1], dtype, rows=len(rows))
    encoded = [
        output.encode(rows[i : i + block], store(vectors[i : i + block], dtype))
        for i in range(0, len(rows), block)
    ]
    output.write(path, lambda: iter(encoded), about)
    return about
