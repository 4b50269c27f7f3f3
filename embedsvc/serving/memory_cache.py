"""Results in memory, by key. The least recently used are forgotten first."""

from collections import OrderedDict

ENTRY_BYTES = 256
"""What an entry takes beside its result: key, object headers, its places in the table. Measured on
64-bit Linux: 190 to 230, and more while the table grows."""


class MemoryCache:
    """The results of one model."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` includes `ENTRY_BYTES` for each result. With 0 nothing is remembered."""
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
