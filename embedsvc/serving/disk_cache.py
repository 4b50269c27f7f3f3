"""Vectors on disk, by key, so that a restart does not forget them.

One SQLite file for each kind of vector. A row carries a checksum, so what is read is right or
absent, and nothing here raises: what cannot be read is absent, what cannot be written is lost.
"""

import asyncio
import errno
import logging
import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Literal

SCHEMA = 1
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
BESIDE = ("-wal", "-shm")
"""Files that SQLite has beside its own."""
PAGE_BYTES = 16384
"""Rows of common dimensions fill it well: 8 to 35 % more on disk than the vectors themselves."""
READ_KEYS = 500
"""Keys in one SELECT; old builds of SQLite take 999 parameters."""
WRITE_ROWS = 256
"""Rows in one transaction. It lasts some milliseconds, and a read waits for one at most."""
LOG_PAGES = 256
"""In the write-ahead log, 4 MiB, before they are moved into the file: some 10 ms on an SSD."""
SHRINK_PAGES = 64
"""Pages given back to the file system after one transaction."""
MAX_WAITING_BYTES = 32 * 2**20
"""Of vectors to be written; those that come while so many wait are not written."""
MAX_USED = 1024
"""Keys whose use is still to be noted."""
STAMP_SECONDS = 3600.0
"""How exactly the file knows when a row was last used: a row read all the time is not written
all the time."""
BUSY_SECONDS = 1.0
"""How long a read or a write waits for another process that has the file locked."""
REST_SECONDS = 10.0
"""For so long it is not tried again, after that, or every request would wait."""
COMPLAINT_SECONDS = 60.0
"""From one line in the log about a failing disk to the next."""

log = logging.getLogger(__name__)


class Store:
    """The file's side towards the event loop: SQLite runs on a thread of its own.

    There is no timer: what comes while one transaction is written goes into the next.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens nothing yet; `fingerprint` says what the results depend on and names the file.

        `max_bytes` bounds the file; its write-ahead log adds a few MiB.
        """
        self.table = Table(
            folder / f"{fingerprint}.sqlite",
            max_bytes=max_bytes,
            clock=clock,
        )
        self.dropped = 0
        """Vectors not written because too many waited."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        self._used: set[bytes] = set()
        self._writing: asyncio.Future[None] | None = None
        self._closed = False

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of the keys that are there, with their vectors (float32, little-endian)."""
        found = {key: self._waiting[key] for key in keys if key in self._waiting}
        rest = [key for key in keys if key not in found] if found else keys
        if rest and not self._closed:
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._thread, self.table.read, rest)
            self.touch(read)
            found |= read
        return found

    def put_many(self, vectors: Mapping[bytes, bytes]) -> None:
        """Have vectors written soon. Returns at once; must be called on the event loop."""
        if self._closed:
            return
        for key, vector in vectors.items():
            if self._waiting_bytes + len(vector) > MAX_WAITING_BYTES:
                self.dropped += 1
            elif key not in self._waiting:
                self._waiting[key] = vector
                self._waiting_bytes += len(vector)
        self._write_next()

    def touch(self, keys: Collection[bytes]) -> None:
        """Have it noted, with some later write, that these were used now."""
        if len(self._used) < MAX_USED:
            self._used.update(keys)
        if len(self._used) >= MAX_USED:
            self._write_next()

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._closed = True
        self._write_next(closing=True)
        while self._writing:
            await asyncio.wait([self._writing])
        await asyncio.get_running_loop().run_in_executor(self._thread, self.table.close)
        self._thread.shutdown(wait=False)  # nothing is left for it to do

    def _write_next(self, *, closing: bool = False) -> None:
        """Start the next transaction, unless one is being written: that one's end starts it."""
        wanted = self._waiting or len(self._used) >= MAX_USED or (closing and self._used)
        if self._writing or not wanted:
            return
        rows = dict(islice(self._waiting.items(), WRITE_ROWS))
        for key, vector in rows.items():
            del self._waiting[key]
            self._waiting_bytes -= len(vector)
        used, self._used = self._used, set[bytes]()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self.table.write, rows, used)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        writing.result()  # the table does not raise; if it does, let the loop report it
        self._write_next(closing=self._closed)


class Table:
    """The file itself: open, read, write, make room. All of it on one thread, and nothing raises.

    A process killed at any moment leaves a good file (that is what the write-ahead log is for).
    One found broken as a whole, or made for other vectors, is set aside as `<name>.corrupt`.
    """

    def __init__(self, path: Path, *, max_bytes: int, clock: Callable[[], float]) -> None:
        self.bytes = 0  # of the file, less its free pages
        self.evictions = 0
        self.errors = 0
        """Operations that failed, and rows that did not match their checksum."""
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._complained = -COMPLAINT_SECONDS
        self._busy: dict[str, float] = {}  # when the file was found locked, last

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The vectors that are there, each as it was written."""
        with self._attempt("read"):
            self._check_rest("read")
            return self._read(self._opened(), keys)
        return {}

    def write(self, vectors: Mapping[bytes, bytes], used: Collection[bytes]) -> None:
        """Write vectors and stamp the keys used, in one transaction, evicting if need be."""
        with self._attempt("write"):
            self._check_rest("write")
            db, now = self._opened(), int(self._clock())
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    # Stamps of the future are from before the clock was set back.
                    "UPDATE vectors SET used = ? WHERE key = ? AND abs(used - ?) > ?",
                    ((now, key, now, STAMP_SECONDS) for key in used),
                )
                self._make_room(db, vectors.values())
                db.executemany(
                    "INSERT INTO vectors (key, vector, crc, used) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET"
                    " vector = excluded.vector, crc = excluded.crc, used = excluded.used",
                    # In the order of the index, which writes fewer of its pages.
                    ((key, row, _crc(key, row), now) for key, row in sorted(vectors.items())),
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

    def _make_room(self, db: sqlite3.Connection, vectors: Collection[bytes]) -> None:
        """Delete the rows longest unused, about two for each one that comes.

        No more at a time, so that no transaction is long: a file far above its bound (one that was
        lowered) gets there by and by.
        """
        incoming = sum(len(vector) + 200 for vector in vectors)
        if vectors and self._measure(db) + incoming > self._max_bytes:
            self.evictions += db.execute(
                "DELETE FROM vectors WHERE rowid IN"
                " (SELECT rowid FROM vectors ORDER BY used LIMIT ?)",
                [2 * len(vectors) + 16],
            ).rowcount

    def _shrink(self, db: sqlite3.Connection) -> None:
        """Give free pages above the bound back to the file system, some at a time."""
        self._measure(db)
        above = _pragma(db, "page_count") - self._max_bytes // PAGE_BYTES
        if above > 0:
            # Not `execute`, which would stop after the first page: it comes as an empty row.
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
        """Make the tables if they are not there. Raises `_Unusable` if they are not ours."""
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # these two count only for a new file
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
        """Turn what goes wrong inside into a line in the log."""
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
        """Raises `_Resting`."""
        if abs(self._clock() - self._busy.get(what, -REST_SECONDS)) < REST_SECONDS:
            raise _Resting

    def _set_aside(self, reason: str) -> None:
        self.close()
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        try:
            # The log first: it must not be taken for the next file's.
            for suffix in BESIDE:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._path.replace(aside)
        except OSError as error:
            self._complain(f"{reason}; not set aside: {error}")
        else:
            self._complain(f"{reason}; set aside as {aside.name}, a new one is begun")

    def _complain(self, message: str) -> None:
        # Either way: a clock that is set back does not make it silent for ever.
        if abs(self._clock() - self._complained) >= COMPLAINT_SECONDS:
            self._complained = self._clock()
            log.warning("cache file %s: %s", self._path, message)


def _make_private(path: Path) -> None:
    """Make the file, if it is not there, and its user's alone, for vectors tell of texts. SQLite
    gives the files it has beside it the same mode.
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
    """The file was locked a moment ago."""


class _Unusable(Exception):
    """The file is sound and not what this version reads and writes."""


def _is_corruption(error: Exception) -> bool:
    """Whether the file's content is the reason, not the disk or another process."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)  # absent: the value read could not be decoded
    if code is None:
        return True
    # The last is an error in a statement: ours are right, so the tables are not what they were.
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _crc(key: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return value
