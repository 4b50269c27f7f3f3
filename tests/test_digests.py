"""A digest that is kept is that of the file as it is, whatever was done to the file."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsvc.checkpoints import digests
from embedsvc.checkpoints.digests import LARGE, MOST, MOST_BYTES, NAME, sha256

CONTENT, OTHER = b"a" * LARGE, b"b" * LARGE


class Started:
    """What a process that starts would read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        original = hashlib.file_digest

        def file_digest(stream: object, name: str) -> object:
            self.read.append(Path(getattr(stream, "name", "")).name)
            return original(stream, name)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(hashlib, "file_digest", file_digest)

    def digest(self, file: Path) -> str:
        digests._sha256.cache_clear()  # pyright: ignore[reportPrivateUsage] - a process has it
        return sha256(file)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """Files rest as soon as they are written, and the user's caches are in a folder `caches`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(digests, "RECENT_SECONDS", -1.0)
    return Started(monkeypatch)


def no_home() -> Path:
    raise RuntimeError


def large(folder: Path, content: bytes = CONTENT) -> Path:
    file = folder / "weights"
    file.write_bytes(content)
    return file


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_stays_is_read_once_for_all_starts(tmp_path: Path, started: Started) -> None:
    file = large(tmp_path)
    assert [started.digest(file) for _ in range(3)] == [digest_of(CONTENT)] * 3
    assert started.read == ["weights"]
    kept = tmp_path / "caches" / "embedsvc" / NAME
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in kept.parent.iterdir()] == [NAME]


def rewrite(file: Path) -> None:
    before = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == before:  # some file systems count in milliseconds
        file.write_bytes(OTHER)


def replace(file: Path) -> None:
    new = file.with_name("new")
    new.write_bytes(OTHER)
    new.replace(file)


def exchange(file: Path) -> None:
    """Put another file in its place that was there all the time."""
    other = file.with_name("other")
    file.rename(file.with_name("aside"))
    other.rename(file)


@pytest.mark.parametrize("change", [rewrite, replace, exchange])
def test_a_change_shows_though_size_and_time_of_writing_are_set_back(
    tmp_path: Path, started: Started, change: Callable[[Path], None]
) -> None:
    file, other = large(tmp_path), tmp_path / "other"
    other.write_bytes(OTHER)
    before = file.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert started.digest(file) == digest_of(CONTENT)
    change(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert started.digest(file) == digest_of(OTHER)
    assert started.digest(file) == digest_of(OTHER)


def test_nothing_is_kept_of_a_file_that_was_just_changed_or_is_small(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, recent = tmp_path / "small", large(tmp_path)
    small.write_bytes(CONTENT[1:])
    started.digest(small)
    monkeypatch.setattr(digests, "RECENT_SECONDS", 3600.0)
    started.digest(recent)
    assert not (tmp_path / "caches").exists()


def test_nothing_is_kept_of_a_file_that_changes_while_it_is_read(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, original = large(tmp_path), hashlib.file_digest

    def file_digest(stream: object, name: str) -> object:
        file.write_bytes(OTHER + b"c")
        return original(stream, name)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    started.digest(file)
    assert not (tmp_path / "caches").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b'{"a": 1}', b" " * (MOST_BYTES + 1), b"[" * 50_000],
)
def test_what_is_damaged_is_written_anew(
    tmp_path: Path, started: Started, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file, kept = large(tmp_path), tmp_path / "caches" / "embedsvc" / NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    with caplog.at_level(logging.INFO):
        assert started.digest(file) == digest_of(CONTENT)
    assert str(kept) in caplog.text
    started.digest(file)
    assert started.read == ["weights"]


def test_the_digests_found_last_are_kept(tmp_path: Path, started: Started) -> None:
    file = large(tmp_path)
    for number in range(MOST + 1):
        link = tmp_path / str(number)
        link.symlink_to(file)
        started.digest(link)
    started.read.clear()
    for number in (1, MOST, 0):
        started.digest(tmp_path / str(number))
    assert started.read == ["0"]


def test_where_nothing_can_be_kept_files_are_read_each_time(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = large(tmp_path)
    (tmp_path / "caches").write_bytes(b"")  # no folder
    assert started.digest(file) == started.digest(file) == digest_of(CONTENT)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("embedsvc.system.home.Path.home", no_home)
    assert started.digest(file) == digest_of(CONTENT)
    assert started.read == ["weights"] * 3
