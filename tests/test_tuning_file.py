"""What tuning found is there at the next start, and a file that is damaged does no harm."""

import json
import logging
from pathlib import Path

import pytest

from embedsvc.serving import tuning_file
from embedsvc.serving.tuning_file import MOST_BYTES, NAME, TuningFile


def test_what_is_put_is_there_at_the_next_start_and_in_another_server_s_file(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "new"
    one, other = TuningFile(folder), TuningFile(folder)
    assert one.get("a") is other.get("a") is None
    one.put("a", {"compile": True})
    other.put("b", {"compile": False, "plain": True})
    assert one.get("a") == {"compile": True}
    again = TuningFile(folder)
    assert (again.get("a"), again.get("b")) == (one.get("a"), other.get("b"))
    assert [file.name for file in folder.iterdir()] == [NAME]


def test_without_a_folder_it_is_among_the_user_s_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    TuningFile(None).put("a", {"compile": True})
    assert TuningFile(None).get("a") == {"compile": True}
    assert [file.name for file in (tmp_path / "embedsvc").iterdir()] == [NAME]


def test_without_a_home_it_is_kept_as_long_as_the_process_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("embedsvc.system.home.Path.home", no_home)
    kept = TuningFile(None)
    kept.put("a", {"compile": True})
    assert kept.get("a") == {"compile": True}


def no_home() -> Path:
    raise RuntimeError


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b'{"a": {"compile": 1}}',
        b'{"a": {"compile": true}',
        b'{"a": true}',
        b" " * (MOST_BYTES + 1),
        b"[" * 50_000,
    ],
)
def test_a_damaged_file_is_named_in_the_log_and_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / NAME).write_bytes(content)
    kept = TuningFile(tmp_path)
    assert kept.get("a") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(tmp_path / NAME) in caplog.text
    kept.put("b", {"compile": True})
    assert json.loads((tmp_path / NAME).read_text()) == {"b": {"compile": True}}


def test_the_file_is_bounded_and_keeps_what_was_found_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_file, "MOST", 3)
    kept = TuningFile(tmp_path)
    for name in "abcab":
        kept.put(name, {"compile": True})
    kept.put("d", {"compile": True})
    assert list(json.loads((tmp_path / NAME).read_text())) == ["a", "b", "d"]


def test_a_file_that_cannot_be_written_is_told_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = TuningFile(tmp_path)
    kept.put("a", {"compile": True})
    before = (tmp_path / NAME).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    kept.put("b", {"compile": True})
    assert "No space left on device" in caplog.text
    assert kept.get("b") == {"compile": True}
    assert (tmp_path / NAME).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [NAME]
