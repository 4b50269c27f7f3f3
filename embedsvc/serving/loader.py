"""The loader: from a card to an engine, on threads of its own."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import TypeVar

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.families import FROM_CARD, FROM_MODULES
from embedsvc.checkpoints.progress import Progress
from embedsvc.checkpoints.sources import find_checkpoint, is_here, look_ahead
from embedsvc.errors import CardsError, CheckpointError
from embedsvc.inference.device import Device
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.plan import Plan, make_plan
from embedsvc.inference.turns import Stepwise
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.serving.engine import Engine
from embedsvc.serving.outline import Outline, outline_from, outline_of
from embedsvc.serving.query_weights import read_query_weights
from embedsvc.serving.tuning_file import TuningFile
from embedsvc.settings import Settings
from embedsvc.texts.roles import open_roles
from embedsvc.texts.templated_pairs import halves
from embedsvc.texts.threads import Tokenizing
from embedsvc.texts.tokenizer import open_tokenizer

T = TypeVar("T")
log = logging.getLogger(__name__)


class Loader:
    """Loads on one device. Several models may be loaded at once."""

    def __init__(self, device: Device, settings: Settings) -> None:
        self.device = device
        self._settings = settings
        # Downloads take minutes, so they have threads apart from work on files that are here. Those
        # of models that clients named do not keep the operator's models waiting.
        self._downloads = ThreadPoolExecutor(2, thread_name_prefix="download")
        self._ad_hoc_downloads = ThreadPoolExecutor(2, thread_name_prefix="ad-hoc-download")
        self._files = ThreadPoolExecutor(2, thread_name_prefix="files")
        self._tuned = TuningFile(settings.cache_folder)
        self._tokenizing = Tokenizing()
        # A tokeniser of a model that a client named may take as long as its author likes.
        self._ad_hoc_tokenizing = Tokenizing("tokenize-ad-hoc")

    async def fetch(self, card: Card, progress: Progress, stop: Event) -> Plan:
        """What is known of the card's files before the weights are read.

        Files that are not here are downloaded. Raises `CheckpointError`, also once `stop` is set.
        """
        threads = self._ad_hoc_downloads if card.ad_hoc else self._downloads
        if await self._on(self._files, partial(is_here, card)):
            threads = self._files
        await self._on(threads, partial(find_checkpoint, card, progress, stop))
        return await self._on(self._files, partial(self._plan, card))

    async def outline(self, card: Card, *, ask_hub: bool) -> Outline:
        """What can be told of the card's model without loading it.

        If its files are not here, that is what the hub says of them, if that may be asked. Raises
        `CheckpointError`.
        """
        if await self._on(self._files, partial(is_here, card)):
            return outline_of(await self._on(self._files, partial(self._plan, card)))
        if not ask_hub:
            raise CheckpointError(f"model `{card.id}`: its files are not here yet")
        threads = self._ad_hoc_downloads if card.ad_hoc else self._downloads
        return outline_from(*await self._on(threads, partial(look_ahead, card)))

    async def load(self, plan: Plan, progress: Progress) -> Engine:
        """The engine of a checkpoint whose memory has been found. Raises `SetupError`."""
        checkpoint = plan.checkpoint
        tokenizer = await self._on(self._files, partial(open_tokenizer, checkpoint, plan.rows))
        if "scores" in plan.heads:
            await self._on(self._files, partial(tokenizer.frame, 2))  # errors show at load
        if (template := checkpoint.pair_template) is not None:  # here it keeps nobody waiting
            prompt = checkpoint.default_prompt
            await self._on(self._files, partial(halves, tokenizer, template, prompt))
        queries = await self._on(self._files, partial(read_query_weights, checkpoint, tokenizer))
        if checkpoint.late is not None:
            open_roles(checkpoint, tokenizer)
        total, done = plan.stored, 0

        def on_read(size: int) -> None:
            nonlocal done
            done += size
            progress(done, total)

        def load(ops: Ops, stepwise: Stepwise) -> Encoder:
            return load_encoder(
                ops,
                checkpoint,
                plan=plan,
                on_read=on_read,
                stepwise=stepwise,
                tuned=self._tuned,
            )

        encoder, fingerprint = await asyncio.gather(
            self.device.load(plan.dtype, load),
            self._on(self._files, partial(checkpoint.fingerprint, plan.dtype)),
        )
        if checkpoint.pooling_source not in (FROM_CARD, FROM_MODULES, ""):
            pooling, source = " + ".join(checkpoint.pooling), checkpoint.pooling_source
            log.info("model `%s` pools by %s: %s", checkpoint.card.id, source, pooling)
        disk = await self._on(self._files, partial(self._disk_cache, fingerprint))
        return Engine(
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            encoder=encoder,
            device=self.device,
            tokenizing=self._ad_hoc_tokenizing if checkpoint.card.ad_hoc else self._tokenizing,
            settings=self._settings,
            disk=disk,
            fingerprint=fingerprint,
            queries=queries,
        )

    async def look_up(self, on_disk: Callable[[], T]) -> T:
        """The result of a function that reads the disk, which may be slow, on a thread."""
        return await self._on(self._files, on_disk)

    def close(self) -> None:
        """Start nothing more, and return when what runs has ended."""
        for threads in (self._downloads, self._ad_hoc_downloads, self._files):
            threads.shutdown(cancel_futures=True)
        for tokenizing in (self._tokenizing, self._ad_hoc_tokenizing):
            tokenizing.close()

    async def _on(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _plan(self, card: Card) -> Plan:
        checkpoint, ops = open_checkpoint(card), self.device.ops
        return make_plan(checkpoint, self.device.dtype(checkpoint), backend=ops.name)

    def _disk_cache(self, fingerprint: str) -> DiskCache | None:
        """The file of the model's results, if results are to be kept on disk."""
        folder = self._settings.cache_folder
        if folder is None:
            return None
        _make_writable(folder)
        most = self._settings.cache_folder_bytes
        return DiskCache(folder, fingerprint, max_bytes=most)


def _make_writable(folder: Path) -> None:
    """Make a folder if it is not there. Raises `CardsError` unless it can be written to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CardsError(f"cache_folder {folder}: {error.strerror}") from None
