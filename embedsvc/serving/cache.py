"""Results that are known, and results in flight: no text is computed again, or twice at a time.

A call takes what is remembered, joins what others are having computed, and has the rest computed
in one flight. A flight is nobody's own: it lands for whoever still waits for it, and is
called off when nobody does.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from embedsvc.errors import Unavailable
from embedsvc.serving.disk_cache import Store
from embedsvc.texts.item import Item

ENTRY_BYTES = 256
"""What an entry takes beside its result: key, headers, its places in the table. Measured on
64-bit Linux: 190 to 230, and more while the table grows."""

LONGER = 64
"""Times as many texts as a call wants may be in a flight that it joins."""

Results = dict[bytes, bytes]
"""By key."""
Flying = asyncio.Future[list[bytes]]


class Compute(Protocol):
    """Computes the result of each item by one head, in their order."""

    def __call__(self, items: list[Item], head: str, /) -> Awaitable[list[bytes]]: ...


class Memory:
    """Results by key, the least recently used forgotten first."""

    def __init__(self, max_bytes: int) -> None:
        """Room for `max_bytes`, `ENTRY_BYTES` for each result included. 0: remembers nothing."""
        self.bytes = 0
        self.evictions = 0
        self._max_bytes = max_bytes
        self._results: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def entries(self) -> int:
        return len(self._results)

    def get(self, key: bytes) -> bytes | None:
        result = self._results.get(key)
        if result is not None:
            self._results.move_to_end(key)
        return result

    def put(self, key: bytes, result: bytes) -> None:
        size = len(result) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        old = self._results.pop(key, None)
        if old is not None:
            self.bytes -= len(old) + ENTRY_BYTES
        self._results[key] = result
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, result = self._results.popitem(last=False)
            self.bytes -= len(result) + ENTRY_BYTES
            self.evictions += 1


@dataclass(slots=True, eq=False)
class Call:
    """One call that waits for flights."""

    results: Results
    """What it has so far."""
    write: bool
    again: bool
    """Whether a flight that it had joined has failed before."""
    done: asyncio.Future[None]
    flights: set["Flight"] = field(default_factory=set["Flight"])
    """Those it still waits for."""


@dataclass(slots=True, eq=False)
class Flight:
    """Texts being looked for on disk and computed, by key."""

    items: dict[bytes, Item]
    found: Results
    """Those that were on disk."""
    task: Flying
    leader: Call
    calls: dict[Call, list[bytes]]
    """Who waits, and for which keys. When nobody does, the flight is called off."""


class Cache:
    """One for each model; runs on the event loop.

    Of the texts asked for, `hits` were in memory, `joined` were in flight already or twice in one
    call, `disk_hits` were on disk, and `misses` were given to `compute`. What is tried again is
    counted again.
    """

    def __init__(self, compute: Compute, *, max_bytes: int, store: Store | None = None) -> None:
        """`max_bytes` bounds the memory, and 0 is none: texts in flight are shared all the same."""
        self.memory = Memory(max_bytes)
        self.store = store
        self.hits = self.joined = self.disk_hits = self.misses = 0
        self._compute = compute
        self._flights: dict[bytes, Flight] = {}
        self._tasks: set[Flying] = set()
        self._closed = False

    async def get(
        self, items: Sequence[Item], head: str, *, read: bool = True, write: bool = True
    ) -> list[bytes]:
        """The results of items by a head, one or more, in their order.

        Without `read` (HTTP's no-cache) everything is computed anew, even what is in flight.
        Without `write` (no-store) nothing is kept that no other call wants kept.

        Raises what `compute` raises; but if that was another call's, for texts that this one
        merely shares with it, they are tried again. Raises `Unavailable` when closing. Cancelled,
        it calls off what nobody else waits for.
        """
        keys = [item.key(head) for item in items]
        wanted = dict(zip(keys, items, strict=True))
        self.joined += len(keys) - len(wanted)
        results: Results = {}
        again = False
        while len(results) < len(wanted):
            if self._closed:
                raise Unavailable("The server is shutting down.")
            missing = self._recall(wanted, results) if read else wanted
            if missing:
                loop = asyncio.get_running_loop()
                call = Call(results, write, again, loop.create_future())
                self._join(call, missing, head, read=read)
                try:
                    await call.done
                finally:
                    self._leave(call)
                again = True
        return [results[key] for key in keys]

    async def close(self) -> None:
        """Refuse what comes; return when what is in flight has ended and the store is closed.

        Close what computes first, so that this is soon. Cancelled, it calls off what still flies.
        """
        self._closed = True
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
        if self.store:
            await self.store.close()

    def _recall(self, wanted: dict[bytes, Item], results: Results) -> dict[bytes, Item]:
        """Add to `results` what is in memory; the texts that are still missing."""
        missing: dict[bytes, Item] = {}
        hits: list[bytes] = []
        for key, item in wanted.items():
            if key in results:
                continue
            result = self.memory.get(key)
            if result is None:
                missing[key] = item
            else:
                results[key] = result
                hits.append(key)
        self.hits += len(hits)
        if self.store and hits:
            self.store.touch(hits)
        return missing

    def _join(self, call: Call, missing: dict[bytes, Item], head: str, *, read: bool) -> None:
        """Join the flights that carry missing texts, and start one with the others.

        A flight lands as a whole: who wants little does not join one that is much longer.
        """
        own: dict[bytes, Item] = {}
        longest = LONGER * len(missing)
        for key, item in missing.items():
            flight = self._flights.get(key) if read else None
            if flight is None or len(flight.items) > longest:
                own[key] = item
            elif call in flight.calls:
                flight.calls[call].append(key)
            else:
                flight.calls[call] = [key]
                call.flights.add(flight)
        self.joined += len(missing) - len(own)
        if own:
            found: Results = {}
            task = self._begin(own, head, found, read=read)
            flight = Flight(own, found, task, call, {call: list(own)})
            call.flights.add(flight)
            for key in own:
                self._flights.setdefault(key, flight)
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, flight))

    def _begin(self, items: dict[bytes, Item], head: str, found: Results, *, read: bool) -> Flying:
        """Have the items computed, in one call, save those on disk, which go to `found`."""
        if self.store and read:
            return asyncio.create_task(self._look_and_compute(self.store, items, head, found))
        self.misses += len(items)
        return asyncio.ensure_future(self._compute(list(items.values()), head))

    async def _look_and_compute(
        self, store: Store, items: dict[bytes, Item], head: str, found: Results
    ) -> list[bytes]:
        found.update(await store.get_many(list(items)))
        self.disk_hits += len(found)
        missing = [item for key, item in items.items() if key not in found]
        self.misses += len(missing)
        return await self._compute(missing, head) if missing else []

    def _ended(self, flight: Flight, task: Flying) -> None:
        """Hand the flight's results, or its failure, to those who wait."""
        self._tasks.discard(task)
        self._forget(flight)
        error = Unavailable("The computation was stopped.") if task.cancelled() else None
        error = error or task.exception()
        computed: Results = {}
        if error is None:
            missing = [key for key in flight.items if key not in flight.found]
            try:
                computed = dict(zip(missing, task.result(), strict=True))
            except ValueError as wrong:  # their number
                error = wrong
        if error is None:
            self._deliver(flight, computed)
        else:
            self._failed(flight, error)

    def _deliver(self, flight: Flight, computed: Results) -> None:
        results = flight.found | computed
        keep: Results = {}
        for call, keys in flight.calls.items():
            mine = {key: results[key] for key in keys}
            call.results.update(mine)
            if call.write:
                keep |= mine
            _settle(call, flight)
        for key, result in keep.items():
            self.memory.put(key, result)
        if self.store:
            self.store.put_many({key: keep[key] for key in computed if key in keep})

    def _failed(self, flight: Flight, error: BaseException) -> None:
        for call, keys in flight.calls.items():
            # Who only joined may not be at fault, and tries again: once, if all texts are its own,
            # else until it is not others whose texts fail. Each failure ends the leader's call.
            own = call is flight.leader or (call.again and len(keys) == len(flight.items))
            _settle(call, flight, error if own else None)

    def _leave(self, call: Call) -> None:
        """Call off the flights that only this call still waits for."""
        for flight in call.flights:
            del flight.calls[call]
            if not flight.calls:
                self._forget(flight)  # now, so that nobody joins it any more
                flight.task.cancel()

    def _forget(self, flight: Flight) -> None:
        for key in flight.items:
            if self._flights.get(key) is flight:
                del self._flights[key]


def _settle(call: Call, flight: Flight, error: BaseException | None = None) -> None:
    """Let a call know that a flight it waits for has ended."""
    call.flights.discard(flight)
    if call.done.done():
        return
    if error is not None:
        call.done.set_exception(error)
    elif not call.flights:
        call.done.set_result(None)
