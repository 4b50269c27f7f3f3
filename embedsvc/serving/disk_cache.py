"""Results on disk, by key, so that a restart does not forget them: the event loop's side.

SQLite runs on a thread; see `cache_file`. There is no timer: results that arrive while one
transaction is written go into the next.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from embedsvc.serving.cache_file import CacheFile

WRITE_ROWS = 256
"""Rows in one transaction. It lasts some milliseconds, and a read waits for one at most."""
MAX_WAITING_BYTES = 32 * 2**20
"""Bytes of results that wait to be written. Results that arrive beyond that are not written."""
MAX_USED = 1024
"""Keys whose use has not been written yet. When there are so many, they are written."""


class DiskCache:
    """The file of one model's results, opened when it is first needed."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fingerprint` says what the results depend on, and names the file.

        `max_bytes` bounds the file; its write-ahead log adds a few MiB.
        """
        path = folder / f"{fingerprint}.sqlite"
        self.file = CacheFile(path, max_bytes=max_bytes, clock=clock)
        self.dropped = 0
        """Results that were not written because too many waited."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk-cache")
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        self._used: set[bytes] = set()
        self._writing: asyncio.Future[None] | None = None
        self._closed = False

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The results of those keys that are there."""
        found = {key: self._waiting[key] for key in keys if key in self._waiting}
        rest = [key for key in keys if key not in found] if found else keys
        if rest and not self._closed:
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._thread, self.file.read, rest)
            self.touch(read)
            found |= read
        return found

    def put_many(self, results: Mapping[bytes, bytes]) -> None:
        """Have results written soon. Returns at once; must be called on the event loop."""
        if self._closed:
            return
        for key, result in results.items():
            if self._waiting_bytes + len(result) > MAX_WAITING_BYTES:
                self.dropped += 1
            elif key not in self._waiting:
                self._waiting[key] = result
                self._waiting_bytes += len(result)
        self._write_next()

    def touch(self, keys: Collection[bytes]) -> None:
        """Note that these keys were used now. The file learns it with some later write."""
        if len(self._used) < MAX_USED:
            self._used.update(keys)
        if len(self._used) >= MAX_USED:
            self._write_next()

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._closed = True
        self._write_next(closing=True)
        while self._writing:
            await asyncio.wait([self._writing])
        await asyncio.get_running_loop().run_in_executor(self._thread, self.file.close)
        self._thread.shutdown(wait=False)  # it has nothing left to do

    def _write_next(self, *, closing: bool = False) -> None:
        """Start the next transaction, unless one is being written: its end starts the next one."""
        needed = self._waiting or len(self._used) >= MAX_USED or (closing and self._used)
        if self._writing or not needed:
            return
        rows = dict(islice(self._waiting.items(), WRITE_ROWS))
        for key, result in rows.items():
            del self._waiting[key]
            self._waiting_bytes -= len(result)
        used, self._used = self._used, set[bytes]()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self.file.write, rows, used)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        writing.result()  # the file does not raise; if it does, let the event loop report it
        self._write_next(closing=self._closed)
