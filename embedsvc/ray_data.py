"""A stage for Ray Data that embeds a column of a dataset, and corpora of Parquet put through it."""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.arrow import arrow
from embedsvc.bulk.batches import Block
from embedsvc.bulk.dtypes import Stored, store
from embedsvc.bulk.embedder import probe
from embedsvc.bulk.local import Local, open_local
from embedsvc.bulk.manifest import How
from embedsvc.bulk.outputs.files import beside, replacing
from embedsvc.bulk.pipeline import Embedding, Pipeline
from embedsvc.bulk.rows import Bad, Columns, Item, to_json
from embedsvc.commands.model_options import find_card
from embedsvc.errors import BulkError
from embedsvc.ray_cluster import connect
from embedsvc.settings import Settings
from embedsvc.system.loop import new_event_loop

ROWS = 1024
"""Of a batch: what an actor that dies has done for nothing."""
BLOCK_BYTES = 16 << 20
"""Of a file of the output: what an interrupted run has done for nothing, for each actor."""
PART = 64
"""Texts of one call."""
ADDED = ("embedding", "error")


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What is embedded, and how."""

    column: str = "text"
    model: str | None = None
    """Id or alias of a card, or a folder; left out, the first card."""
    how: How = How()
    dtype: Stored = "float32"
    settings: Settings = Settings()


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """The actors of a stage, and what each has for itself."""

    least: int = 1
    most: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0


class Embed:
    """For `map_batches`: adds `embedding`, or null and the reason in `error`, to Arrow tables."""

    def __init__(self, stage: Stage) -> None:
        """Load the model. Raises `SetupError`."""
        if stage.how.chunking is not None:
            raise BulkError("a row has one vector here: late chunking is for `embedsvc embed`")
        self._stage = stage
        self._runner = asyncio.Runner(loop_factory=new_event_loop)
        self._embedder, self._sample = self._runner.run(self._open())

    def __call__(self, table: Any) -> Any:
        stage = self._stage
        for name in ADDED:
            if name in table.column_names:
                raise BulkError(f"there is a column `{name}` already")
        if stage.column not in table.column_names:
            there = ", ".join(table.column_names)
            raise BulkError(f"no column `{stage.column}`; there are: {there}")
        columns = Columns(stage.column)
        texts = table[stage.column].to_pylist()
        items = [columns.row("", i, {stage.column: text}, i) for i, text in enumerate(texts)]
        return self._with_results(table, self._runner.run(self._embed(items)))

    async def _open(self) -> tuple[Local, NDArray[np.float32]]:
        self._open_until_exit = AsyncExitStack()
        settings = self._stage.settings
        card = find_card(self._stage.model, settings.models)
        embedder = await self._open_until_exit.enter_async_context(open_local(card, settings))
        return embedder, await probe(embedder, self._stage.how)

    async def _embed(self, items: Sequence[Item]) -> list[Embedding | Bad]:
        pipeline = Pipeline(self._embedder, self._stage.how)
        blocks = [Block(list(items[first : first + PART])) for first in range(0, len(items), PART)]
        finished = await asyncio.gather(*map(pipeline.finish, blocks))
        return [result for one in finished for result in one.results]

    def _with_results(self, table: Any, results: Sequence[Embedding | Bad]) -> Any:
        pa = arrow()
        bad = [isinstance(result, Bad) for result in results]
        nothing = np.zeros_like(self._sample)[None]
        rows = [nothing if isinstance(one, Bad) else one.vectors for one in results]
        vectors = store(np.concatenate(rows), self._stage.dtype)
        flat = pa.array(vectors.ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(bad))
        reasons = [one.reason if isinstance(one, Bad) else None for one in results]
        table = table.append_column("embedding", lists)
        return table.append_column("error", pa.array(reasons, pa.string()))


def embed(dataset: Any, stage: Stage, pool: Pool) -> Any:
    """The dataset with `embedding` and `error`. Actors that die are replaced, their rows redone."""
    data = import_module("ray.data")
    cores = stage.settings.cores or max(1, int(pool.num_cpus))
    settings = msgspec.structs.replace(stage.settings, cores=cores)
    return dataset.map_batches(
        Embed,
        fn_constructor_args=[msgspec.structs.replace(stage, settings=settings)],
        batch_format="pyarrow",
        batch_size=ROWS,
        compute=data.ActorPoolStrategy(min_size=pool.least, max_size=pool.most),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
    )


def embed_parquet(source: str, output: Path, id_column: str, stage: Stage, pool: Pool) -> None:
    """Embed Parquet files into a folder of them; a run that was interrupted goes on.

    `source` is a file or a folder, `id_column` has a value for each row that no other row has. Both
    folders are to be seen from all machines. Raises `BulkError` if something else is in the way.
    """
    connect()
    data, checkpoint = import_module("ray.data"), import_module("ray.data.checkpoint")
    output = output.absolute()
    partial = beside(output, "partial")
    _begin(output, partial, to_json([source, id_column, stage]))
    context = data.DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.checkpoint_config = checkpoint.CheckpointConfig(
        id_column, str(partial / "rows"), delete_checkpoint_on_success=False
    )
    try:
        embed(data.read_parquet(source), stage, pool).write_parquet(str(output))
    finally:
        context.checkpoint_config = None
    shutil.rmtree(partial)


def _begin(output: Path, partial: Path, job: bytes) -> None:
    """Write down what is being done, if it is not written there from before."""
    file = partial / "job.json"
    if file.exists():
        if file.read_bytes() != job:
            raise BulkError(f"{partial} was begun otherwise: go on as it was begun, or delete it")
        return
    if output.exists():
        raise BulkError(f"{output} is there already")
    partial.mkdir(parents=True, exist_ok=True)
    with replacing(file) as written:
        written.write(job)
