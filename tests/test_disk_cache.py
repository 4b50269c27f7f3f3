"""The cache on disk, on the event loop: nothing waits for a disk, and nothing grows for ever."""

import asyncio
import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from embedsvc.serving.cache_file import STAMP_SECONDS
from embedsvc.serving.disk_cache import MAX_WAITING_BYTES, DiskCache
from tests.support.cache_rows import key, rows, vector
from tests.support.clock import Clock


def disk(folder: Path) -> DiskCache:
    return DiskCache(folder, "abc", max_bytes=2**30, clock=Clock())


def test_vectors_can_be_read_while_they_wait_and_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = disk(tmp_path / "new" / "folder")
        first.put_many(rows(range(1000)))
        assert await first.get_many(list(rows([999, 1000]))) == rows([999])  # not yet written
        assert await first.get_many([key(0)]) == rows([0])
        await first.close()
        again = disk(tmp_path / "new" / "folder")
        assert await again.get_many(list(rows(range(1001)))) == rows(range(1000))
        await again.close()

    asyncio.run(scenario())


def test_what_comes_while_a_transaction_is_written_goes_into_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        target = disk(tmp_path)
        transactions: list[int] = []
        write = target.file.write

        def counted(vectors: Mapping[bytes, bytes], used: Collection[bytes]) -> None:
            transactions.append(len(vectors))
            write(vectors, used)

        monkeypatch.setattr(target.file, "write", counted)
        for i in range(100):
            target.put_many(rows([i]))
        await target.close()
        assert transactions == [1, 99]

    asyncio.run(scenario())


def test_a_locked_file_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        target = disk(tmp_path)
        await target.get_many([key(0)])
        other = sqlite3.connect(tmp_path / "abc.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        target.put_many(rows([1]))
        await asyncio.sleep(0)
        other.execute("ROLLBACK")  # which nobody could do if the loop stood still
        other.close()
        await target.close()
        assert target.file.errors == 0

    asyncio.run(scenario())


def test_what_comes_faster_than_it_can_be_written_is_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        dimensions = 2**18  # 1 MiB
        room = MAX_WAITING_BYTES // 2**20
        target = disk(tmp_path)
        big = vector(1, dimensions)
        target.put_many({key(i): big for i in range(room + 5)})
        assert target.dropped == 5
        # Those are being written now, and there is room again; the same one twice takes it once.
        for _ in range(2):
            target.put_many({key(i): big for i in range(100, 100 + room // 2)})
        target.put_many({key(i): big for i in range(200, 200 + room // 2)})
        assert target.dropped == 5
        target.put_many({key(1): big})
        assert target.dropped == 6
        await target.close()

    asyncio.run(scenario())


def test_uses_noted_only_in_passing_are_written_at_the_latest_at_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        target = DiskCache(tmp_path, "abc", max_bytes=2**30, clock=clock)
        target.put_many(rows(range(3)))
        assert await target.get_many([key(0)]) == rows([0])
        clock.now += 2 * STAMP_SECONDS
        target.touch([key(1)])
        assert await target.get_many([key(2)]) == rows([2])
        await target.close()

    asyncio.run(scenario())
    with sqlite3.connect(tmp_path / "abc.sqlite") as db:
        used = dict(db.execute("SELECT key, used FROM vectors").fetchall())
    db.close()
    assert used[key(1)] == used[key(2)] == 1_000_000 + 2 * STAMP_SECONDS


def test_a_call_that_is_cancelled_while_it_reads_leaves_the_cache_usable(tmp_path: Path) -> None:
    async def scenario() -> None:
        target = disk(tmp_path)
        target.put_many(rows(range(10)))
        reading = asyncio.create_task(target.get_many([key(100)]))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await target.get_many([key(1)]) == rows([1])
        await target.close()
        assert await target.get_many([key(1)]) == {}  # closed: absent
        target.put_many(rows([1]))

    asyncio.run(scenario())
