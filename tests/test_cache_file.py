"""The cache file: what is read is what was written, within its bound, whatever the disk does."""

import os
import resource
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedsvc.serving.cache_file import REST_SECONDS, STAMP_SECONDS, CacheFile
from tests.support.cache_files import cache_file, close_all
from tests.support.cache_rows import key, rows, vector
from tests.support.clock import Clock


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "abc.sqlite"


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_its_files_are_for_their_user_alone_whatever_the_folder_is(path: Path, umask: int) -> None:
    path.parent.chmod(0o777)
    before = os.umask(umask)
    try:
        first = cache_file(path)
        first.write(rows(range(3)), [])
        found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert found == dict.fromkeys(("abc.sqlite", "abc.sqlite-wal", "abc.sqlite-shm"), 0o600)
        for file in path.parent.iterdir():
            file.chmod(0o644)  # as an older version left them
        again = cache_file(path)
        assert again.read([key(1)]) == rows([1])
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)


def test_what_is_no_regular_file_is_left_alone(path: Path) -> None:
    os.mkfifo(path)
    broken = cache_file(path)
    assert broken.read([key(1)]) == {}
    broken.write(rows([1]), [])
    assert broken.errors == 2
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    first = cache_file(path)
    first.write(rows(range(600)), ())
    first.close()
    again = cache_file(path)
    assert again.read(list(rows(range(-5, 600)))) == rows(range(600))
    again.close()
    assert [file.name for file in path.parent.iterdir()] == ["abc.sqlite"]


def test_a_vector_written_again_replaces_the_old_one(path: Path) -> None:
    file = cache_file(path)
    file.write({key(1): vector(1)}, ())
    file.write({key(1): vector(2)}, ())
    assert file.read([key(1)]) == {key(1): vector(2)}
    file.close()


def test_the_file_stays_within_its_bound_and_forgets_what_was_not_used_longest(path: Path) -> None:
    clock = Clock()
    file = cache_file(path, max_bytes=2**20, clock=clock)
    for batch in range(40):
        clock.now += STAMP_SECONDS
        ids = range(50 * batch, 50 * batch + 50)
        # The first ten are used all the time.
        file.write(rows(ids, 384), rows(range(10)))
        assert file.read(list(rows(ids))) == rows(ids, 384)
        assert path.stat().st_size <= 2**20
    assert file.evictions > 1000
    found = file.read(list(rows(range(2000))))
    assert found.items() >= rows(range(10), 384).items()
    assert found.items() >= rows(range(1700, 2000), 384).items()
    file.close()


def test_a_file_whose_bound_is_lowered_shrinks_as_it_is_written(path: Path) -> None:
    file = cache_file(path)
    file.write(rows(range(2000), 384), ())
    file.close()
    assert path.stat().st_size > 3_000_000
    file = cache_file(path, max_bytes=2**20)
    for batch in range(40):
        file.write(rows(range(2000 + 100 * batch, 2100 + 100 * batch), 384), ())
    file.close()
    assert path.stat().st_size <= 2**20


def test_a_row_used_a_moment_ago_is_not_stamped_again(path: Path) -> None:
    clock = Clock()
    file = cache_file(path, clock=clock)
    file.write(rows([1]), ())
    stamps: list[float] = []
    for seconds in (1.0, STAMP_SECONDS, 1.0):
        clock.now += seconds
        file.write({}, rows([1]))
        with sqlite3.connect(path) as db:
            stamps += db.execute("SELECT used FROM vectors").fetchone()
        db.close()
    assert stamps == [1_000_000, 1_000_001 + STAMP_SECONDS, 1_000_001 + STAMP_SECONDS]
    file.close()


def test_a_full_disk_is_logged_once_and_costs_only_what_is_not_written(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = cache_file(path)
    file.write(rows(range(10)), ())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        for batch in range(3):
            file.write(rows(range(batch, batch + 20_000)), ())
        assert file.read(list(rows(range(100)))) == rows(range(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.errors == 3
    assert len(caplog.records) == 1
    file.write(rows(range(100)), ())
    assert file.read(list(rows(range(100)))) == rows(range(100))
    file.close()


def test_a_failing_disk_is_mentioned_again_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").write_text("a file where the folder should be")
    clock = Clock()
    file = cache_file(tmp_path / "folder" / "abc.sqlite", clock=clock)
    for _ in range(4):
        clock.now += 45
        file.write(rows([1]), ())
        assert file.read([key(1)]) == {}
    assert len(caplog.records) == 2
    file.close()


def test_a_file_that_another_process_keeps_locked_is_waited_for_once_in_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.cache_file.BUSY_SECONDS", 0.0)
    clock = Clock()
    file = cache_file(path, clock=clock)
    file.write(rows([1]), ())
    tried: list[int] = []
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = CacheFile._opened
    monkeypatch.setattr(CacheFile, "_opened", lambda self: (tried.append(1), began(self))[1])
    for _ in range(5):
        file.write(rows([2]), ())
    assert (len(tried), file.errors) == (1, 5)
    assert file.read([key(1)]) == rows([1])  # readers do not mind
    clock.now += REST_SECONDS
    file.write(rows([2]), ())
    assert (len(tried), file.errors) == (3, 6)
    other.execute("ROLLBACK")
    other.close()
    clock.now += REST_SECONDS
    file.write(rows([2]), ())
    assert file.read([key(2)]) == rows([2])
    file.close()
