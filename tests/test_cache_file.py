"""The cache file: what is read is what was written or nothing, whatever befell the file."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.serving.cache_file import REST_SECONDS, STAMP_SECONDS, CacheFile
from tests.support.cache_rows import key, rows, vector
from tests.support.clock import Clock

OPEN: list[CacheFile] = []
"""The files of the running test, closed at its end."""


def cache_file(path: Path, *, max_bytes: int = 2**30, clock: Clock | None = None) -> CacheFile:
    made = CacheFile(path, max_bytes=max_bytes, clock=clock or Clock())
    OPEN.append(made)
    return made


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "abc.sqlite"


# --- the file ------------------------------------------------------------------------------------


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


def test_a_row_that_does_not_match_its_checksum_is_absent_and_deleted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = cache_file(path)
    file.write(rows(range(4)), ())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = zeroblob(32) WHERE key = ?", [key(0)])
        db.execute("UPDATE vectors SET vector = ? WHERE key = ?", [vector(1) * 2, key(1)])
        # A sound vector under the key of another text.
        db.execute("UPDATE vectors SET key = ? WHERE key = ?", [key(9), key(2)])
    db.close()
    assert file.read([key(i) for i in range(10)]) == rows([3])
    assert file.errors == 3
    assert "checksum" in caplog.text
    file.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM vectors").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("content", [b"nonsense" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_cache_is_set_aside_and_a_new_one_begun(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    path.with_name("abc.sqlite-wal").write_bytes(b"its log")
    file = cache_file(path)
    assert file.read([key(1)]) == {}
    assert [left.name for left in path.parent.iterdir()] == ["abc.sqlite.corrupt"]
    assert "set aside as abc.sqlite.corrupt" in caplog.text
    file.write(rows([1]), ())
    assert file.read([key(1)]) == rows([1])
    file.close()
    assert path.with_name("abc.sqlite.corrupt").read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = 99 WHERE name = 'schema'",
        "UPDATE meta SET name = CAST(x'ff' AS TEXT) WHERE name = 'schema'",
        "ALTER TABLE vectors RENAME COLUMN crc TO checksum",
    ],
)
def test_a_file_made_by_another_version_is_set_aside(
    path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = cache_file(path)
    file.write(rows([1]), ())
    file.close()
    with sqlite3.connect(path) as db:
        db.execute(change)
    db.close()
    file = cache_file(path)
    assert file.read([key(1)]) == {}
    assert "set aside" in caplog.text
    file.write(rows([2]), ())
    assert file.read([key(1), key(2)]) == rows([2])
    file.close()


@cache
def sound_files() -> dict[str, bytes]:
    """A file with 200 rows and its write-ahead log with 100 of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "abc.sqlite")
        file = cache_file(path)
        file.write(rows(range(100)), ())
        file.close()
        file = cache_file(path)
        file.write(rows(range(100, 200)), ())
        files = {
            p.name: p.read_bytes() for p in Path(folder).iterdir() if p.suffix != ".sqlite-shm"
        }
        file.close()
    assert set(files) == {"abc.sqlite", "abc.sqlite-wal"}
    return files


@given(
    st.sampled_from(["abc.sqlite", "abc.sqlite-wal"]),
    st.lists(st.tuples(st.integers(0), st.integers(1, 255), st.sampled_from([1, 4, 64]))),
    st.none() | st.integers(0, 200_000),
)
@settings(deadline=None, max_examples=30)
def test_from_a_damaged_file_every_row_read_is_right_or_absent(
    name: str, damage: list[tuple[int, int, int]], length: int | None
) -> None:
    content = bytearray(sound_files()[name][:length])
    meaningful = [i for i, byte in enumerate(content) if byte]
    for where, mask, size in damage if meaningful else ():
        start = meaningful[where % len(meaningful)]
        for i in range(start, min(start + size, len(content))):
            content[i] ^= mask
    ids = range(300)
    right = rows(ids)
    with tempfile.TemporaryDirectory() as folder:
        for other, sound in sound_files().items():
            Path(folder, other).write_bytes(content if other == name else sound)
        for _ in range(2):
            file = cache_file(Path(folder, "abc.sqlite"))
            assert file.read(list(right)).items() <= right.items()
            file.write(rows(range(150, 300)), rows(range(50)))
            assert file.read(list(right)).items() <= right.items()
            file.close()


WRITER = """
import sys, time
from itertools import count
from pathlib import Path
from embedsvc.serving.cache_file import CacheFile

file = CacheFile(Path(sys.argv[1]), max_bytes=2**30, clock=time.time)
for start in count(int(sys.argv[2]), 20):
    keys = [i.to_bytes(16, "big") for i in range(start, start + 20)]
    file.write({key: key * 2 for key in keys}, keys[:3])
    print(start, flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_a_good_file(path: Path) -> None:
    right = {i.to_bytes(16, "big"): i.to_bytes(16, "big") * 2 for i in range(100_000)}
    kept = 0
    for kill_after in (1, 3, 40):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(kept)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        ) as writer:
            assert writer.stdout is not None
            done = [int(writer.stdout.readline()) for _ in range(kill_after)]
            writer.kill()  # in the middle of some later transaction
        file = cache_file(path)
        found = file.read(list(right))
        assert found.items() <= right.items()
        assert len(found) >= done[-1] + 20
        assert len(found) % 20 == 0  # whole transactions
        assert file.errors == 0
        file.close()
        kept = len(found)


# --- its bound -----------------------------------------------------------------------------------


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


# --- a disk that fails ---------------------------------------------------------------------------


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
