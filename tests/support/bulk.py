"""Runs of `embedsvc embed` in this process, on an embedder of the test's own."""

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedsvc.bulk.job import Job, Run, Summary
from embedsvc.bulk.manifest import PROBE, EmbedOptions
from embedsvc.bulk.progress import Progress
from embedsvc.errors import BadRequest, BulkError, EmbeddingFailed
from embedsvc.serving.embedded import Embedded
from embedsvc.texts.late_chunking import Chunk
from tests.support.fake_server import vector_of


class FakeEmbedder:
    """An embedder whose vectors come from checksums. It refuses some texts, and may break down."""

    calls = 3

    def __init__(
        self,
        model: str = "fake",
        *,
        seed: str = "",
        breaks_after: int = 10**9,
        fingerprint: str | None = None,
    ) -> None:
        self.model = model
        self.fingerprint = fingerprint
        self.seed = seed
        self.left = breaks_after
        self.texts: list[str] = []
        self.sizes: list[int] = []
        self.broken = False

    async def embed(self, texts: Sequence[str], options: EmbedOptions) -> Embedded:
        await asyncio.sleep(0)
        for number, text in enumerate(texts):
            which = "input" if len(texts) == 1 else f"input[{number}]"
            if "long" in text:
                raise BadRequest(f"Invalid '{which}': too long")
            if "odd" in text:
                raise BadRequest("something is not right")
            if "nan" in text or self.broken:
                raise EmbeddingFailed("it failed")
        if list(texts) != [PROBE]:
            self.texts += texts
            self.sizes.append(len(texts))
            self.left -= len(texts)
            if self.left < 0:
                raise BulkError("out of order")
        vectors = np.stack([vector_of(self.seed + (options.prompt or "") + text) for text in texts])
        if options.chunking is None:
            return Embedded(vectors, 3 * len(texts))
        chunks = [[Chunk(0, 2, 1), Chunk(2, len(text), 1)] for text in texts]
        return Embedded(vectors.repeat(2, axis=0), 3 * len(texts), chunks=chunks)


def go(embedder: FakeEmbedder, output: Path, *inputs: Path, **options: Any) -> Summary:
    """Run a job to its end, and write the output."""
    names = tuple(map(str, inputs))
    with Run(Job(inputs=names, output=output, **options), Progress(io.StringIO())) as run:
        summary = asyncio.run(run.embed(embedder))
        run.write_output(summary.manifest)
    return summary


def rows_of(count: int) -> str:
    return "".join(json.dumps({"text": f"text {i}", "key": f"k{i}"}) + "\n" for i in range(count))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
