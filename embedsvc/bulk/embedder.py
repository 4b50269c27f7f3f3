"""What makes vectors of texts: a model in this process, or a server."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.manifest import PROBE, How
from embedsvc.errors import BulkError, RequestError
from embedsvc.serving.engine import Embedded


class Embedder(Protocol):
    """Use it on one event loop."""

    model: str
    """The model's own name, not an alias."""
    fingerprint: str | None
    """Of the model's files and precision, of a server that tells it, once it has answered."""
    calls: int
    """To have at a time, for good throughput."""

    async def embed(self, texts: Sequence[str], how: How) -> Embedded:
        """Vectors of texts, one or more.

        Raises `RequestError` if one of them cannot be embedded, `BulkError` if none can.
        """
        ...


async def probe(embedder: Embedder, how: How) -> NDArray[np.float32]:
    """The vector (D,) of `PROBE`. Raises `BulkError` if what is asked for cannot be had."""
    try:
        return (await embedder.embed([PROBE], how.of_one_vector())).vectors[0]
    except RequestError as error:
        raise BulkError(f"model `{embedder.model}`: {error}") from None
