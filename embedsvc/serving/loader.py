"""From a card to an engine: files, weights, tokeniser, cache; on threads of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import TypeVar

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.sources import find_checkpoint, is_here
from embedsvc.errors import CardsError
from embedsvc.inference.device import Device
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.plan import Plan, make_plan
from embedsvc.inference.turns import Stepwise
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.serving.engine import Engine
from embedsvc.settings import Settings
from embedsvc.texts.threads import Tokenizing
from embedsvc.texts.tokenizer import open_tokenizer

T = TypeVar("T")
Told = Callable[[int, int], None]
"""Told the bytes done, and those there are to do; from any thread."""


class Loader:
    """Loads on one device; its methods may be called for several models at once."""

    def __init__(self, device: Device, settings: Settings) -> None:
        self.device = device
        self._settings = settings
        # Downloads take minutes, so they are apart from what is done with files that are here; and
        # what clients made up does not keep the operator's models waiting.
        self._downloads = ThreadPoolExecutor(2, thread_name_prefix="download")
        self._ad_hoc_downloads = ThreadPoolExecutor(2, thread_name_prefix="ad-hoc-download")
        self._files = ThreadPoolExecutor(2, thread_name_prefix="files")
        self._tokenizing = Tokenizing()
        # The tokenisers of models that clients chose may take as long as those please.
        self._ad_hoc_tokenizing = Tokenizing("tokenize-ad-hoc")

    async def fetch(self, card: Card, told: Told, stop: Event) -> Plan:
        """The card's files, downloaded if they are not here, and read but for the weights.

        Raises `CheckpointError`, also once `stop` is set.
        """
        threads = self._ad_hoc_downloads if card.ad_hoc else self._downloads
        if await self._on(self._files, partial(is_here, card)):
            threads = self._files
        await self._on(threads, partial(find_checkpoint, card, told, stop))
        return await self._on(self._files, partial(self._plan, card))

    async def load(self, plan: Plan, told: Told) -> Engine:
        """The checkpoint's engine. Raises `SetupError`."""
        checkpoint = plan.checkpoint
        tokenizer = await self._on(self._files, partial(open_tokenizer, checkpoint, plan.rows))
        total, done = plan.stored, 0

        def on_read(size: int) -> None:
            nonlocal done
            done += size
            told(done, total)

        def load(ops: Ops, stepwise: Stepwise) -> Encoder:
            return load_encoder(ops, checkpoint, plan=plan, on_read=on_read, stepwise=stepwise)

        dtype = self.device.dtype(checkpoint.card.dtype)
        encoder, fingerprint = await asyncio.gather(
            self.device.load(checkpoint.card.dtype, load),
            self._on(self._files, partial(checkpoint.fingerprint, dtype)),
        )
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
        )

    async def look(self, at_disk: Callable[[], T]) -> T:
        """Have something looked up on the disk, which may be slow, away from the event loop."""
        return await self._on(self._files, at_disk)

    def close(self) -> None:
        """Start nothing more; return when what runs has ended."""
        for threads in (self._downloads, self._ad_hoc_downloads, self._files):
            threads.shutdown(cancel_futures=True)
        for tokenizing in (self._tokenizing, self._ad_hoc_tokenizing):
            tokenizing.close()

    async def _on(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def _plan(self, card: Card) -> Plan:
        """What is known of a card's files before room is made for them."""
        dtype, packed = self.device.dtype(card.dtype), self.device.ops.name == "mlx"
        return make_plan(open_checkpoint(card), dtype, packed=packed)

    def _disk_cache(self, fingerprint: str) -> DiskCache | None:
        """The model's vectors on disk, if they are to be kept there."""
        folder = self._settings.cache_folder
        if folder is None:
            return None
        _make(folder)
        most = self._settings.cache_folder_bytes
        return DiskCache(folder, fingerprint, max_bytes=most)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()  # whether it can be written
    except OSError as error:
        raise CardsError(f"cache_folder {folder}: {error.strerror}") from None
