"""What an output is: by which model, and what was asked of it beside the texts."""

import base64
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.dtypes import Stored, store
from embedsvc.catalog.cards import Truncate
from embedsvc.texts.requests import Chunking, EmbeddingRequest

PROBE = "The quick brown fox jumps over the lazy dog."
"""A text whose vector tells one model from another."""
SAME = 0.999
"""Cosine of the vectors of one text by one model: another precision or machine stays above it."""


class How(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked of a model beside the texts."""

    input_type: str | None = None
    prompt: str | None = None
    truncate: Truncate | None = None
    dimensions: int | None = None
    chunking: Chunking | None = None

    def request(self, model: str, texts: list[str]) -> EmbeddingRequest:
        """The request for vectors of the texts."""
        return EmbeddingRequest(
            model=model,
            inputs=texts,
            input_type=self.input_type,
            prompt=self.prompt,
            truncate=self.truncate,
            dimensions=self.dimensions,
            chunks=self.chunking,
        )

    def of_one_vector(self) -> "How":
        """The same for texts that are neither long nor cut up."""
        return msgspec.structs.replace(self, truncate=None, chunking=None)


class About(msgspec.Struct, frozen=True):
    """Kept with every output, so that what searches it can embed the query alike."""

    model: str
    fingerprint: str
    """The vector of `PROBE`, with the same prompt and dimensions: float32 in base64."""
    dimensions: int
    dtype: Stored
    how: How = How()
    rows: int = 0

    def __post_init__(self) -> None:
        if self.dimensions < 1 or self.rows < 0:
            raise ValueError("sizes that cannot be")
        vector = read_fingerprint(self.fingerprint)
        if vector.shape != (self.dimensions,) or not np.isfinite(vector).all() or not vector.any():
            raise ValueError("a fingerprint that is none")

    @property
    def like(self) -> NDArray[Any]:
        """No rows of vectors, in the width and the type in which they are stored."""
        return store(np.empty((0, self.dimensions), np.float32), self.dtype)

    def is_by(self, probe: NDArray[np.float32]) -> bool:
        """Whether the model that made `probe`, its vector of `PROBE`, made this too."""
        own = read_fingerprint(self.fingerprint)
        return own.shape == probe.shape and cosine(own, probe) >= SAME


def fingerprint_of(probe: NDArray[np.float32]) -> str:
    """The fingerprint for a vector of `PROBE`."""
    return base64.b64encode(probe.astype("<f4").tobytes()).decode()


def read_fingerprint(fingerprint: str) -> NDArray[np.float32]:
    """The vector in it."""
    return np.frombuffer(base64.b64decode(fingerprint), "<f4")


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of two vectors (D,)."""
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
