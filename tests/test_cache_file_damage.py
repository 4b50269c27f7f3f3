"""A cache file that was damaged: what is read is what was written, or nothing."""

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cache_files import cache_file, close_all
from tests.support.cache_rows import key, rows, vector


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "abc.sqlite"


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
