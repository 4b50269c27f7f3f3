"""Finished vectors, and vectors in flight: no text is computed again, or twice at a time.

A call takes what is remembered, joins what others are having computed, and has the rest computed
in one flight. A flight is nobody's own: it lands for whoever still waits for it, and is
called off when nobody does.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import Unavailable
from embedsvc.serving.disk_cache import Store
from embedsvc.texts.item import SpannedText, Text

ENTRY_BYTES = 256
"""What an entry takes beside its vector: key, headers, its places in the table. Measured on
64-bit Linux: 190 to 230, and more while the table grows."""

LONGER = 64
"""Times as many texts as a call wants may be in a flight that it joins."""

Compute = Callable[[list[Text]], Awaitable[NDArray[np.float32]]]
Vectors = dict[bytes, bytes]  # by key: float32, little-endian, (D,)
Flying = asyncio.Future[NDArray[np.float32]]  # what was computed (n, D)


class Memory:
    """Vectors by key, the least recently used forgotten first."""

    def __init__(self, max_bytes: int) -> None:
        """Room for `max_bytes`, `ENTRY_BYTES` for each vector included. 0: remembers nothing."""
        self.bytes = 0
        self.evictions = 0
        self._max_bytes = max_bytes
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def entries(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes) -> bytes | None:
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: bytes) -> None:
        size = len(vector) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        old = self._vectors.pop(key, None)
        if old is not None:
            self.bytes -= len(old) + ENTRY_BYTES
        self._vectors[key] = vector
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, vector = self._vectors.popitem(last=False)
            self.bytes -= len(vector) + ENTRY_BYTES
            self.evictions += 1


@dataclass(slots=True, eq=False)
class Call:
    """One call that waits for flights."""

    vectors: Vectors
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

    texts: dict[bytes, Text]
    found: Vectors
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

    async def embed(
        self, texts: Sequence[Text], *, read: bool = True, write: bool = True
    ) -> NDArray[np.float32]:
        """Vectors (n, D) of n texts, one or more, in their order; the array is the caller's own.

        Without `read` (HTTP's no-cache) everything is computed anew, even what is in flight.
        Without `write` (no-store) nothing is kept that no other call wants kept.

        Raises what `compute` raises; but if that was another call's, for texts that this one
        merely shares with it, they are tried again. Raises `Unavailable` when closing. Cancelled,
        it calls off what nobody else waits for.
        """
        keys = [_key(ids) for ids in texts]
        wanted = dict(zip(keys, texts, strict=True))
        self.joined += len(keys) - len(wanted)
        vectors: Vectors = {}
        again = False
        while len(vectors) < len(wanted):
            if self._closed:
                raise Unavailable("The server is shutting down.")
            missing = self._recall(wanted, vectors) if read else wanted
            if missing:
                loop = asyncio.get_running_loop()
                call = Call(vectors, write, again, loop.create_future())
                self._board(call, missing, read=read)
                try:
                    await call.done
                finally:
                    self._leave(call)
                again = True
        rows = bytearray().join([vectors[key] for key in keys])  # many times faster than np.stack
        return np.frombuffer(rows, "<f4").reshape(len(keys), -1)

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

    def _recall(self, wanted: dict[bytes, Text], vectors: Vectors) -> dict[bytes, Text]:
        """Add to `vectors` what is in memory; the texts that are still missing."""
        missing: dict[bytes, Text] = {}
        hits: list[bytes] = []
        for key, ids in wanted.items():
            if key in vectors:
                continue
            vector = self.memory.get(key)
            if vector is None:
                missing[key] = ids
            else:
                vectors[key] = vector
                hits.append(key)
        self.hits += len(hits)
        if self.store and hits:
            self.store.touch(hits)
        return missing

    def _board(self, call: Call, missing: dict[bytes, Text], *, read: bool) -> None:
        """Join the flights that carry missing texts, and start one with the others.

        A flight lands as a whole: who wants little does not join one that is much longer.
        """
        own: dict[bytes, Text] = {}
        longest = LONGER * len(missing)
        for key, ids in missing.items():
            flight = self._flights.get(key) if read else None
            if flight is None or len(flight.texts) > longest:
                own[key] = ids
            elif call in flight.calls:
                flight.calls[call].append(key)
            else:
                flight.calls[call] = [key]
                call.flights.add(flight)
        self.joined += len(missing) - len(own)
        if own:
            found: Vectors = {}
            task = self._fly(own, found, read=read)
            flight = Flight(own, found, task, call, {call: list(own)})
            call.flights.add(flight)
            for key in own:
                self._flights.setdefault(key, flight)
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, flight))

    def _fly(self, texts: dict[bytes, Text], found: Vectors, *, read: bool) -> Flying:
        """Have the texts computed, in one call, save those on disk, which go to `found`."""
        if self.store and read:
            return asyncio.create_task(self._look_and_fly(self.store, texts, found))
        self.misses += len(texts)
        return asyncio.ensure_future(self._compute(list(texts.values())))

    async def _look_and_fly(
        self, store: Store, texts: dict[bytes, Text], found: Vectors
    ) -> NDArray[np.float32]:
        found.update(await store.get_many(list(texts)))
        self.disk_hits += len(found)
        missing = [ids for key, ids in texts.items() if key not in found]
        self.misses += len(missing)
        return await self._compute(missing) if missing else np.empty((0, 0), np.float32)

    def _ended(self, flight: Flight, task: Flying) -> None:
        """Hand the flight's vectors, or its failure, to those who wait."""
        self._tasks.discard(task)
        self._forget(flight)
        error = Unavailable("The computation was stopped.") if task.cancelled() else None
        error = error or task.exception()
        computed: Vectors = {}
        if error is None:
            missing = [key for key in flight.texts if key not in flight.found]
            try:
                for key, row in zip(missing, task.result(), strict=True):
                    computed[key] = row.astype("<f4", copy=False).tobytes()
            except ValueError as wrong:  # their number
                error = wrong
        if error is None:
            self._landed(flight, computed)
        else:
            self._failed(flight, error)

    def _landed(self, flight: Flight, computed: Vectors) -> None:
        vectors = flight.found | computed
        keep: Vectors = {}
        for call, keys in flight.calls.items():
            mine = {key: vectors[key] for key in keys}
            call.vectors.update(mine)
            if call.write:
                keep |= mine
            _settle(call, flight)
        for key, vector in keep.items():
            self.memory.put(key, vector)
        if self.store:
            self.store.put_many({key: keep[key] for key in computed if key in keep})

    def _failed(self, flight: Flight, error: BaseException) -> None:
        for call, keys in flight.calls.items():
            # Who only joined may not be at fault, and tries again: once, if all texts are its own,
            # else until it is not others whose texts fail. Each failure ends the leader's call.
            own = call is flight.leader or (call.again and len(keys) == len(flight.texts))
            _settle(call, flight, error if own else None)

    def _leave(self, call: Call) -> None:
        """Call off the flights that only this call still waits for."""
        for flight in call.flights:
            del flight.calls[call]
            if not flight.calls:
                self._forget(flight)  # now, so that nobody joins it any more
                flight.task.cancel()

    def _forget(self, flight: Flight) -> None:
        for key in flight.texts:
            if self._flights.get(key) is flight:
                del self._flights[key]


def _key(text: Text) -> bytes:
    if not isinstance(text, SpannedText):
        return blake2b(text.astype("<i4", copy=False).tobytes(), digest_size=16).digest()
    # Apart from plain texts by `person`, and the spans from the ids by how many there are.
    spans = np.array([len(text.spans), *chain.from_iterable(text.spans)], "<i4").tobytes()
    ids = text.ids.astype("<i4", copy=False).tobytes()
    return blake2b(spans + ids, digest_size=16, person=b"spans").digest()


def _settle(call: Call, flight: Flight, error: BaseException | None = None) -> None:
    """Let a call know that a flight it waits for has ended."""
    call.flights.discard(flight)
    if call.done.done():
        return
    if error is not None:
        call.done.set_exception(error)
    elif not call.flights:
        call.done.set_result(None)
