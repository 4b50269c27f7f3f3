"""The manifest of an output: which model made its vectors, with which options."""

import base64
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.dtypes import Stored, store
from embedsvc.catalog.cards import Truncate
from embedsvc.serving.embedded import SparseVector
from embedsvc.texts.requests import Chunking, EmbeddingRequest, SparseOptions

PROBE = "The quick brown fox jumps over the lazy dog."
"""A text whose vector tells one model from another."""
SAME_MODEL_COSINE = 0.999
"""The least cosine of two vectors of `PROBE` that one model made. Other precisions and other
machines stay above it."""


VectorType = Literal["dense", "sparse"]
PLACES = 256
"""Numbers that a sparse vector of `PROBE` is kept as."""


class EmbedOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked of a model beside the texts."""

    input_type: str | None = None
    prompt: str | None = None
    truncate: Truncate | None = None
    dimensions: int | None = None
    chunking: Chunking | None = None
    type: VectorType = "dense"

    def request(self, model: str, texts: list[str]) -> EmbeddingRequest:
        """The request for the vectors of texts."""
        return EmbeddingRequest(
            model=model,
            inputs=texts,
            input_type=self.input_type,
            prompt=self.prompt,
            truncate=self.truncate,
            dimensions=self.dimensions,
            chunks=self.chunking,
            dense=self.type == "dense",
            sparse=SparseOptions() if self.type == "sparse" else None,
        )

    def for_one_vector(self) -> "EmbedOptions":
        """The same options for a short text, which is neither cut nor split into chunks."""
        return msgspec.structs.replace(self, truncate=None, chunking=None)


class Manifest(msgspec.Struct, frozen=True, rename={"probe": "fingerprint", "options": "how"}):
    """Kept with every output, so that `embedsvc search` can embed queries in the same way."""

    model: str
    probe: str
    """The vector of `PROBE`, with the same prompt and dimensions: float32 in base64; of a
    sparse one the `sketch`."""
    dimensions: int
    """Of the vector of `PROBE`, and of all others that are dense."""
    dtype: Stored
    options: EmbedOptions = EmbedOptions()
    rows: int = 0

    def __post_init__(self) -> None:
        if self.dimensions < 1 or self.rows < 0:
            raise ValueError("sizes that cannot be")
        vector = decode_probe(self.probe)
        if vector.shape != (self.dimensions,) or not np.isfinite(vector).all() or not vector.any():
            raise ValueError("a vector that is none")

    @property
    def no_vectors(self) -> NDArray[Any]:
        """An array (0, D) with the width and the dtype in which vectors are stored."""
        return store(np.empty((0, self.dimensions), np.float32), self.dtype)

    def is_same_model(self, probe: NDArray[np.float32]) -> bool:
        """Whether the model that gave `PROBE` the vector `probe` is the one of this output."""
        own = decode_probe(self.probe)
        return own.shape == probe.shape and cosine(own, probe) >= SAME_MODEL_COSINE


def sketch(vector: SparseVector) -> NDArray[np.float32]:
    """A sparse vector as a short dense one (PLACES,): weights are added up by their ids.

    >>> twice = np.array([1, 257], np.int32)
    >>> sketch(SparseVector(twice, np.array([0.5, 1], np.float32)))[:3].tolist()
    [0.0, 1.5, 0.0]
    """
    sums = np.bincount(vector.indices % PLACES, weights=vector.values, minlength=PLACES)
    return sums.astype(np.float32)


def encode_probe(probe: NDArray[np.float32]) -> str:
    """A vector of `PROBE` in base64.

    >>> encode_probe(np.array([0.5, 1.0], np.float32))
    'AAAAPwAAgD8='
    """
    return base64.b64encode(probe.astype("<f4").tobytes()).decode()


def decode_probe(encoded: str) -> NDArray[np.float32]:
    """The vector that `encode_probe` encoded.

    >>> decode_probe("AAAAPwAAgD8=").tolist()
    [0.5, 1.0]
    """
    return np.frombuffer(base64.b64decode(encoded), "<f4")


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The cosine of two vectors (D,).

    >>> cosine(np.array([1, 0], np.float32), np.array([0, 2], np.float32))
    0.0
    """
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
