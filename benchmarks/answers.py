"""Checks vectors against those that the tests have recorded."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.model import MODEL, ROOT

REFERENCE = ROOT / "tests" / "reference"
SAMPLE = (12, 13, 15, 17, 21, 23, 24, 27, 31, 35, 66, 71, 74, 96, 99, 100, 103, 106, 107, 108, 109)
"""The recorded texts that every server is asked for, of 5 to 256 tokens and in several scripts."""


@dataclass
class Reference:
    """Texts, and the vectors that sentence-transformers made of them."""

    texts: list[str]
    vectors: NDArray[np.float32]


def read_reference(model: str, folder: Path) -> Reference:
    """The recorded sample, which the tests use too; of other models than `MODEL`, the vectors that
    were made for the folder of their files."""
    texts = json.loads((REFERENCE / "texts.json").read_text(encoding="utf-8"))
    file = REFERENCE / f"{MODEL}.npy" if model == MODEL else folder / "reference.npy"
    vectors = np.load(file, allow_pickle=False)
    return Reference([texts[index] for index in SAMPLE], vectors[list(SAMPLE)])


def cosines(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each row with the row that it should be; 0 if it is not finite, or zero."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    with np.errstate(all="ignore"):
        return np.nan_to_num((vectors * expected).sum(axis=1) / lengths)
