"""The cache of one model: results that are known, and computations that are in flight.

No text is computed again, or twice at the same time. A call takes the results that are remembered,
joins computations that others have in flight, and starts one computation for the rest. A
computation belongs to no call: it delivers to all that still wait for it, and is cancelled when
none does. Where several heads are asked for, what is known of one of them is not computed again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from embedsvc.errors import Unavailable
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.serving.joint import Compute, Want, compute_wants
from embedsvc.serving.memory_cache import MemoryCache
from embedsvc.texts.item import Item

LONGER = 64
"""A call that misses n texts joins a computation only if that has at most this many times n, since
it has to wait for all of them."""

Results = dict[bytes, bytes]
"""Results by the keys of their items."""
Task = asyncio.Future[list[bytes]]


@dataclass(slots=True, eq=False)
class Waiter:
    """One call of `Cache.get` that waits for computations."""

    results: Results
    """The results that the call has so far."""
    write: bool
    """Whether the call lets its results be kept."""
    again: bool
    """Whether a computation that the call had joined has failed before."""
    done: asyncio.Future[None]
    """Ends when the last computation has ended, or with an error of one."""
    computations: set["Computation"] = field(default_factory=set["Computation"])
    """Those that it still waits for."""


@dataclass(slots=True, eq=False)
class Computation:
    """Items in flight: looked up on disk, and computed together where they are not there."""

    wants: dict[bytes, Want]
    """By key."""
    on_disk: Results
    """The results that were found on disk."""
    task: Task
    """Gives the results of the other items, in their order."""
    starter: Waiter
    """The call that started it."""
    waiters: dict[Waiter, list[bytes]]
    """The calls that wait, and for which keys. When none does, the task is cancelled."""


class Cache:
    """One for each model; runs on the event loop.

    Of the results asked for, one for each text and head, `hits` were in memory, `joined` were in
    flight already or twice in one call, `disk_hits` were on disk, and `misses` were given to
    `compute`. What is tried again is counted again.
    """

    def __init__(self, compute: Compute, *, max_bytes: int, disk: DiskCache | None = None) -> None:
        """`max_bytes` bounds the memory. With 0, texts in flight are shared all the same."""
        self.memory = MemoryCache(max_bytes)
        self.disk = disk
        self.hits = self.joined = self.disk_hits = self.misses = 0
        self._compute = compute
        self._in_flight: dict[bytes, Computation] = {}
        self._tasks: set[Task] = set()
        self._closed = False

    async def get(
        self, items: Sequence[Item], head: str, *, read: bool = True, write: bool = True
    ) -> list[bytes]:
        """The results of items by a head, one or more, in their order.

        Without `read` (HTTP's no-cache) everything is computed anew, even what is in flight.
        Without `write` (no-store) nothing is kept that no other call wants kept.

        Raises what `compute` raises; but where a computation fails that another call started, the
        texts are tried again. Raises `Unavailable` when closing. If the call is cancelled, so are
        computations that no other call waits for.
        """
        (results,) = await self.get_joined(items, (head,), read=read, write=write)
        return results

    async def get_joined(
        self, items: Sequence[Item], heads: Sequence[str], *, read: bool = True, write: bool = True
    ) -> list[list[bytes]]:
        """The results of items by each of several heads: what `get` returns, for each of them.

        What several heads compute of one text, they compute in one pass.
        """
        keys = [item.key(head) for head in heads for item in items]
        wants = [(item, head) for head in heads for item in items]
        by_key = dict(zip(keys, wants, strict=True))
        self.joined += len(keys) - len(by_key)
        results: Results = {}
        again = False
        while len(results) < len(by_key):
            if self._closed:
                raise Unavailable("The server is shutting down.")
            missing = self._recall(by_key, results) if read else by_key
            if missing:
                done = asyncio.get_running_loop().create_future()
                waiter = Waiter(results, write, again, done)
                self._join_or_compute(waiter, missing, read=read)
                try:
                    await done
                finally:
                    self._leave(waiter)
                again = True
        found = [results[key] for key in keys]
        return [found[n : n + len(items)] for n in range(0, len(found), len(items))]

    async def close(self) -> None:
        """Refuse what comes; return when what is in flight has ended and the disk is closed.

        Close what computes first, so that this is soon. If cancelled, cancel what is in flight.
        """
        self._closed = True
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
        if self.disk:
            await self.disk.close()

    def _recall(self, by_key: dict[bytes, Want], results: Results) -> dict[bytes, Want]:
        """Add the results that are in memory to `results`; return what is missing."""
        missing: dict[bytes, Want] = {}
        hits: list[bytes] = []
        for key, want in by_key.items():
            if key in results:
                continue
            result = self.memory.get(key)
            if result is None:
                missing[key] = want
            else:
                results[key] = result
                hits.append(key)
        self.hits += len(hits)
        if self.disk and hits:
            self.disk.touch(hits)
        return missing

    def _join_or_compute(self, waiter: Waiter, missing: dict[bytes, Want], *, read: bool) -> None:
        """Join the computations that have missing items in flight, and start one for the others.

        A computation ends as a whole, so a call that misses few texts does not join one of many.
        """
        own: dict[bytes, Want] = {}
        longest = LONGER * len(missing)
        for key, want in missing.items():
            computation = self._in_flight.get(key) if read else None
            if computation is None or len(computation.wants) > longest:
                own[key] = want
            elif waiter in computation.waiters:
                computation.waiters[waiter].append(key)
            else:
                computation.waiters[waiter] = [key]
                waiter.computations.add(computation)
        self.joined += len(missing) - len(own)
        if own:
            on_disk: Results = {}
            task = self._start(own, on_disk, read=read)
            computation = Computation(own, on_disk, task, waiter, {waiter: list(own)})
            waiter.computations.add(computation)
            for key in own:
                self._in_flight.setdefault(key, computation)
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, computation))

    def _start(self, wants: dict[bytes, Want], on_disk: Results, *, read: bool) -> Task:
        """Have wants computed together, except those on disk, whose results go to `on_disk`."""
        if self.disk and read:
            return asyncio.create_task(self._look_up_and_compute(self.disk, wants, on_disk))
        self.misses += len(wants)
        return asyncio.ensure_future(compute_wants(self._compute, list(wants.values())))

    async def _look_up_and_compute(
        self, disk: DiskCache, wants: dict[bytes, Want], on_disk: Results
    ) -> list[bytes]:
        on_disk.update(await disk.get_many(list(wants)))
        self.disk_hits += len(on_disk)
        missing = [want for key, want in wants.items() if key not in on_disk]
        self.misses += len(missing)
        return await compute_wants(self._compute, missing) if missing else []

    def _ended(self, computation: Computation, task: Task) -> None:
        """Give the results, or the error, of a computation to the calls that wait."""
        self._tasks.discard(task)
        self._forget(computation)
        error = Unavailable("The computation was stopped.") if task.cancelled() else None
        error = error or task.exception()
        computed: Results = {}
        if error is None:
            missing = [key for key in computation.wants if key not in computation.on_disk]
            try:
                computed = dict(zip(missing, task.result(), strict=True))
            except ValueError as wrong_number:
                error = wrong_number
        if error is None:
            self._deliver(computation, computed)
        else:
            self._fail(computation, error)

    def _deliver(self, computation: Computation, computed: Results) -> None:
        results = computation.on_disk | computed
        keep: Results = {}
        for waiter, keys in computation.waiters.items():
            own = {key: results[key] for key in keys}
            waiter.results.update(own)
            if waiter.write:
                keep |= own
            _settle(waiter, computation)
        for key, result in keep.items():
            self.memory.put(key, result)
        if self.disk:
            self.disk.put_many({key: keep[key] for key in computed if key in keep})

    def _fail(self, computation: Computation, error: BaseException) -> None:
        """Fail the call that started a computation, and let those that joined it try again.

        Texts of others may be at fault. But a call that has tried again before fails if all texts
        of the computation are its own. So each failure ends at least one call.
        """
        for waiter, keys in computation.waiters.items():
            alone = waiter.again and len(keys) == len(computation.wants)
            fails = waiter is computation.starter or alone
            _settle(waiter, computation, error if fails else None)

    def _leave(self, waiter: Waiter) -> None:
        """Cancel the computations that only this call still waits for."""
        for computation in waiter.computations:
            del computation.waiters[waiter]
            if not computation.waiters:
                self._forget(computation)  # now, so that nobody joins it any more
                computation.task.cancel()

    def _forget(self, computation: Computation) -> None:
        for key in computation.wants:
            if self._in_flight.get(key) is computation:
                del self._in_flight[key]


def _settle(waiter: Waiter, computation: Computation, error: BaseException | None = None) -> None:
    """Let a call know that a computation it waits for has ended."""
    waiter.computations.discard(computation)
    if waiter.done.done():
        return
    if error is not None:
        waiter.done.set_exception(error)
    elif not waiter.computations:
        waiter.done.set_result(None)
