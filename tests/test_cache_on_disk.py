"""A cache over one on disk: what is looked up there, what is kept there, and a disk that fails."""

import asyncio
import sqlite3
from pathlib import Path

from embedsvc.serving.cache_file import STAMP_SECONDS
from tests.support.clock import Clock
from tests.support.fake_device import turns
from tests.support.fake_model import Model, ask, cache, disk, run, vectors


def test_after_a_restart_vectors_come_from_disk_and_then_from_memory(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        before = cache(model, disk=disk(tmp_path))
        await ask(before, 1, 2)
        await before.close()
        after = cache(model, disk=disk(tmp_path))
        assert (await ask(after, 1, 3, 2)).tolist() == vectors(1, 3, 2)
        assert (await ask(after, 1, 2)).tolist() == vectors(1, 2)
        assert model.computed == [[1, 2], [3]]
        assert (after.hits, after.disk_hits, after.misses) == (2, 2, 1)
        await after.close()

    run(scenario)


def test_the_disk_is_asked_once_for_texts_that_several_calls_want(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        before = cache(model, disk=disk(tmp_path))
        await ask(before, 1)
        await before.close()
        after = cache(model, max_bytes=0, disk=disk(tmp_path))
        for answer in await asyncio.gather(*(ask(after, 1) for _ in range(5))):
            assert answer.tolist() == vectors(1)
        assert (after.disk_hits, after.joined) == (1, 4)
        await after.close()

    run(scenario)


def stamps(folder: Path) -> list[float]:
    """When the file's rows were last used, as it says."""
    with sqlite3.connect(folder / "abc.sqlite") as db:
        used = [used for (used,) in db.execute("SELECT used FROM vectors ORDER BY used")]
    db.close()
    return used


def test_the_disk_learns_what_is_used_from_memory(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        clock = Clock()
        asked = cache(model, disk=disk(tmp_path, clock))
        await ask(asked, 1, 2)
        await ask(asked, 3, write=False)  # has read the disk, so the two are written
        clock.now += 2 * STAMP_SECONDS
        await ask(asked, 1)
        await asked.close()
        assert stamps(tmp_path) == [1_000_000, clock.now]

    run(scenario)


def test_what_is_found_on_disk_is_not_written_again(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        clock = Clock()
        for _ in range(2):
            asked = cache(model, disk=disk(tmp_path, clock))
            await ask(asked, 1, 2)
            await asked.close()
            clock.now += 1
        assert stamps(tmp_path) == [1_000_000, 1_000_000]

    run(scenario)


def test_what_may_not_be_written_or_read_is_not_on_disk_either(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        before = cache(model, disk=disk(tmp_path))
        await ask(before, 1, write=False)
        await ask(before, 2)
        await before.close()
        after = cache(model, disk=disk(tmp_path))
        await ask(after, 2, read=False)
        await ask(after, 1)
        assert model.computed == [[1], [2], [2], [1]]
        assert after.disk_hits == 0
        await after.close()

    run(scenario)


def test_a_disk_that_fails_costs_no_answer(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        model.at_once = True
        (tmp_path / "folder").write_text("a file where the folder should be")
        asked = cache(model, disk=disk(tmp_path / "folder"))
        for _ in range(2):
            assert (await ask(asked, 1, 2)).tolist() == vectors(1, 2)
        assert model.computed == [[1, 2]]
        await asked.close()

    run(scenario)


def test_hanging_up_while_the_disk_is_read_computes_nothing(tmp_path: Path) -> None:
    async def scenario(model: Model) -> None:
        asked = cache(model, disk=disk(tmp_path))
        leaving = ask(asked, 1)
        await turns(2)  # its computation waits for the disk's thread
        leaving.cancel()
        await asked.close()
        assert leaving.cancelled()
        assert model.computed == []

    run(scenario)
