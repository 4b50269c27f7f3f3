"""A stage for Ray Data that embeds a column of a dataset, and whole corpora of Parquet."""

import asyncio
import os
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
from embedsvc.bulk.batches import Batch
from embedsvc.bulk.dtypes import Stored, store
from embedsvc.bulk.embedder import probe
from embedsvc.bulk.local import Local, open_local
from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.bulk.outputs.files import beside, replacing
from embedsvc.bulk.pipeline import Embedding, Pipeline
from embedsvc.bulk.rows import BadRow, Columns, InputRow, to_json
from embedsvc.commands.model_options import card_named
from embedsvc.errors import BulkError
from embedsvc.settings import Settings
from embedsvc.system.loop import new_event_loop

ROWS = 1024
"""How many rows a batch has. When an actor dies, it has computed at most these in vain."""
BLOCK_BYTES = 16 << 20
"""The size of a file of the output. An interrupted run loses at most one of them for each actor."""
TEXTS_PER_CALL = 64
ADDED = ("embedding", "error")
"""The columns that the stage adds."""
LOCAL_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: listen on loopback
}
"""Environment variables that Ray reads when it is imported, for a cluster that is for this machine
alone and reports to nobody."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What is embedded, and how."""

    column: str = "text"
    model: str | None = None
    """Id or alias of a card, or a folder. None: the first card."""
    how: EmbedOptions = EmbedOptions()
    dtype: Stored = "float32"
    settings: Settings = Settings()


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """How many actors a stage has, and what each of them has for itself."""

    least: int = 1
    most: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0


class Embed:
    """A class for `map_batches` that adds two columns to an Arrow table.

    A row has its vector in `embedding`, or it has null there and the reason in `error`.
    """

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
        card = card_named(self._stage.model, settings.models)
        embedder = await self._open_until_exit.enter_async_context(open_local(card, settings))
        return embedder, await probe(embedder, self._stage.how)

    async def _embed(self, items: Sequence[InputRow]) -> list[Embedding | BadRow]:
        pipeline = Pipeline(self._embedder, self._stage.how)
        starts = range(0, len(items), TEXTS_PER_CALL)
        batches = [Batch(list(items[start : start + TEXTS_PER_CALL])) for start in starts]
        finished = await asyncio.gather(*map(pipeline.embed_batch, batches))
        return [result for one in finished for result in one.results]

    def _with_results(self, table: Any, results: Sequence[Embedding | BadRow]) -> Any:
        pa = arrow()
        bad = [isinstance(result, BadRow) for result in results]
        no_vector = np.zeros_like(self._sample)[None]
        rows = [no_vector if isinstance(one, BadRow) else one.vectors for one in results]
        vectors = store(np.concatenate(rows), self._stage.dtype)
        flat = pa.array(vectors.ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(bad))
        reasons = [one.reason if isinstance(one, BadRow) else None for one in results]
        table = table.append_column("embedding", lists)
        return table.append_column("error", pa.array(reasons, pa.string()))


def embed(dataset: Any, stage: Stage, pool: Pool) -> Any:
    """The dataset with the columns `embedding` and `error`.

    Actors that die are replaced, and their rows are computed again.
    """
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
    """Embed Parquet files into a folder of Parquet files. A run that was interrupted goes on.

    `source` is a file or a folder. `id_column` has a value in each row that no other row has. All
    machines must see both folders. Raises `BulkError` if something else is in the way.
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


def connect(cpus: int | None = None) -> Any:
    """The module `ray`, connected to the cluster that RAY_ADDRESS names, or to one that it starts.

    A cluster that it starts is for this machine alone, reports its use to nobody, and has so many
    CPUs to give (None: all). For that, Ray must not have been imported before.
    """
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        os.environ.update(LOCAL_CLUSTER)
    ray = import_module("ray")
    if not ray.is_initialized():
        ray.init(**{} if joins else {"num_cpus": cpus, "include_dashboard": False})
    return ray


def _begin(output: Path, partial: Path, job: bytes) -> None:
    """Write what the run does into `partial`, or check that an earlier run did the same."""
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
