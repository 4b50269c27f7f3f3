"""What makes vectors of texts: a model in this process, or a server."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.manifest import PROBE, EmbedOptions, sketch
from embedsvc.errors import BulkError, RequestError
from embedsvc.serving.embedded import Embedded


class Embedder(Protocol):
    """A model that embeds texts. It is used on one event loop."""

    model: str
    """The model's own name, not an alias."""
    fingerprint: str | None
    """A digest of the model's files and precision. Only a server has one, if it tells it, and only
    once it has answered."""
    calls: int
    """How many calls of `embed` should run at a time, for good throughput."""

    async def embed(self, texts: Sequence[str], options: EmbedOptions) -> Embedded:
        """Vectors of one or more texts.

        Raises `RequestError` if one of them cannot be embedded, `BulkError` if none can be.
        """
        ...


async def probe(embedder: Embedder, options: EmbedOptions) -> NDArray[np.float32]:
    """The vector (D,) of `PROBE`, of a sparse one the sketch.

    Raises `BulkError` if the model refuses these options.
    """
    try:
        embedded = await embedder.embed([PROBE], options.for_one_vector())
        return sketch(embedded.sparse[0]) if embedded.sparse else embedded.vectors[0]
    except RequestError as error:
        raise BulkError(f"model `{embedder.model}`: {error}") from None
