"""The file that keeps results of one model by key: an SQLite database.

Each row carries a checksum, so a result that is read is right, or it is absent. Nothing here raises
for a failing disk: what cannot be read is absent, and what cannot be written is lost.
"""

import errno
import logging
import os
import sqlite3
import stat
import zlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

SCHEMA = 1
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
BESIDE = ("-wal", "-shm")
"""The ends of the names of the files that SQLite keeps beside its own."""
PAGE_BYTES = 16384
"""Rows of common dimensions fill it well: 8 to 35 % more on disk than the vectors themselves."""
ROW_BYTES = 200
"""What a row takes beside its result, about."""
READ_KEYS = 500
"""Keys in one SELECT; old builds of SQLite take 999 parameters."""
LOG_PAGES = 256
"""Pages in the write-ahead log (4 MiB) before they are moved into the file, which takes
some 10 ms on an SSD."""
SHRINK_PAGES = 64
"""Pages that are given back to the file system after one transaction, at most."""
STAMP_SECONDS = 3600.0
"""How exactly the file knows when a row was last used. A row that is read all the time is written
only this often."""
BUSY_SECONDS = 1.0
"""How long a read or a write waits for another process that has the file locked."""
REST_SECONDS = 10.0
"""How long the file is not tried again after that, or every request would wait for it."""
COMPLAINT_SECONDS = 60.0
"""The least time between two lines in the log about a failing disk."""

log = logging.getLogger(__name__)


class CacheFile:
    """The file. All methods are to be called on one thread, and none of them raises.

    A process that is killed at any moment leaves a good file, thanks to the write-ahead log. A file
    that is found broken as a whole, or is of another version, is set aside as `<name>.corrupt`.
    """

    def __init__(self, path: Path, *, max_bytes: int, clock: Callable[[], float]) -> None:
        self.bytes = 0
        """The size of the file without its free pages."""
        self.evictions = 0
        self.errors = 0
        """Operations that failed and rows that did not match their checksum, counted together."""
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._complained = -COMPLAINT_SECONDS
        """When a failing disk was last mentioned in the log."""
        self._busy: dict[str, float] = {}
        """When the file was last found locked, by reading or by writing."""

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The results of those keys that are there, each as it was written."""
        with self._attempt("read"):
            self._check_rest("read")
            return self._read(self._opened(), keys)
        return {}

    def write(self, results: Mapping[bytes, bytes], used: Collection[bytes]) -> None:
        """Write results, and that keys were used now, in one transaction; evict if need be."""
        with self._attempt("write"):
            self._check_rest("write")
            db, now = self._opened(), int(self._clock())
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    # A use in the future was written before the clock was set back.
                    "UPDATE vectors SET used = ? WHERE key = ? AND abs(used - ?) > ?",
                    ((now, key, now, STAMP_SECONDS) for key in used),
                )
                self._make_room(db, results.values())
                db.executemany(
                    "INSERT INTO vectors (key, vector, crc, used) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET"
                    " vector = excluded.vector, crc = excluded.crc, used = excluded.used",
                    # Rows in the order of the index change fewer of its pages.
                    ((key, row, _crc(key, row), now) for key, row in sorted(results.items())),
                )
            self._shrink(db)

    def close(self) -> None:
        if self._db:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _read(self, db: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        bad: list[tuple[int]] = []
        for start in range(0, len(keys), READ_KEYS):
            some = keys[start : start + READ_KEYS]
            marks = ",".join("?" * len(some))
            rows = db.execute(
                f"SELECT rowid, key, vector, crc FROM vectors WHERE key IN ({marks})",  # noqa: S608 - question marks
                some,
            )
            for rowid, key, vector, crc in rows:
                blobs = isinstance(key, bytes) and isinstance(vector, bytes)
                if blobs and _crc(key, vector) == crc:
                    found[key] = vector
                else:
                    bad.append((rowid,))
        if bad:
            self.errors += len(bad)
            self._complain(f"{len(bad)} rows do not match their checksum and are deleted")
            db.executemany("DELETE FROM vectors WHERE rowid = ?", bad)
        return found

    def _make_room(self, db: sqlite3.Connection, results: Collection[bytes]) -> None:
        """Where the file is full, delete the least recently used rows, about two for each new one.

        More at a time would make the transaction long. A file far above its bound, because the
        bound was lowered, shrinks a little with each write.
        """
        incoming = sum(len(result) + ROW_BYTES for result in results)
        if results and self._measure(db) + incoming > self._max_bytes:
            self.evictions += db.execute(
                "DELETE FROM vectors WHERE rowid IN"
                " (SELECT rowid FROM vectors ORDER BY used LIMIT ?)",
                [2 * len(results) + 16],
            ).rowcount

    def _shrink(self, db: sqlite3.Connection) -> None:
        """Give some of the free pages above the bound back to the file system."""
        self._measure(db)
        above = _pragma(db, "page_count") - self._max_bytes // PAGE_BYTES
        if above > 0:
            # `execute` would stop after the first page, which SQLite returns as an empty row.
            db.executescript(f"PRAGMA incremental_vacuum({min(above, SHRINK_PAGES)})")

    def _measure(self, db: sqlite3.Connection) -> int:
        pages = _pragma(db, "page_count") - _pragma(db, "freelist_count")
        self.bytes = pages * _pragma(db, "page_size")
        return self.bytes

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(self._path)
            db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare(db)
                self._measure(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables if they are not there. Raises `_Unusable` if a version does not fit."""
        # The first two statements matter to a new file only.
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_PAGES * PAGE_BYTES}")
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"
            )
            db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", [SCHEMA])
            about = dict(db.execute("SELECT name, value FROM meta").fetchall())
            if about.get("schema") != SCHEMA:
                raise _Unusable(f"it is of version {about.get('schema')}, not {SCHEMA}")
            db.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB NOT NULL UNIQUE,"
                " vector BLOB NOT NULL, crc INTEGER NOT NULL, used INTEGER NOT NULL)"
            )
            db.execute("CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used)")

    @contextmanager
    def _attempt(self, what: Literal["read", "write"]) -> Generator[None, None, None]:
        """Count what goes wrong inside, and log it in place of raising it."""
        try:
            yield
        except _Resting:
            self.errors += 1
        except (sqlite3.Error, _Unusable, OSError) as error:
            self.errors += 1
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY:
                self._busy[what] = self._clock()
            if isinstance(error, _Unusable) or _is_corruption(error):
                self._set_aside(str(error))
            else:
                self._complain(f"{error}; going on without")

    def _check_rest(self, what: Literal["read", "write"]) -> None:
        """Raises `_Resting` if the file was found locked less than `REST_SECONDS` ago."""
        if abs(self._clock() - self._busy.get(what, -REST_SECONDS)) < REST_SECONDS:
            raise _Resting

    def _set_aside(self, reason: str) -> None:
        self.close()
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        try:
            # The write-ahead log goes first: it must not be taken for the next file's.
            for suffix in BESIDE:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._path.replace(aside)
        except OSError as error:
            self._complain(f"{reason}; not set aside: {error}")
        else:
            self._complain(f"{reason}; set aside as {aside.name}, a new one is begun")

    def _complain(self, message: str) -> None:
        # `abs`, because a clock that is set back must not silence it for ever.
        if abs(self._clock() - self._complained) >= COMPLAINT_SECONDS:
            self._complained = self._clock()
            log.warning("cache file %s: %s", self._path, message)


def _make_private(path: Path) -> None:
    """Make the file, if it is not there, readable by its user alone: vectors reveal their texts.

    SQLite gives the files that it keeps beside it the same mode.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if about.st_uid == os.geteuid() and about.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    for suffix in BESIDE:
        with suppress(OSError):
            beside = path.with_name(path.name + suffix)
            if not beside.is_symlink() and beside.stat().st_mode & 0o077:
                beside.chmod(0o600)


class _Resting(Exception):
    """The file was locked a moment ago, so it is not tried now."""


class _Unusable(Exception):
    """The file is sound, but of a version that is not read here."""


def _is_corruption(error: Exception) -> bool:
    """Whether the file's content is the reason, not the disk or another process."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)  # absent: the value read could not be decoded
    if code is None:
        return True
    # SQLITE_ERROR is a wrong statement. Ours are right, so the tables are not what they were.
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _crc(key: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return value
