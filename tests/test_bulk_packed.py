"""Compressed inputs: those that are read, and those that are not."""

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from embedsvc.bulk.inputs import lines
from embedsvc.bulk.rows import InputRow
from embedsvc.errors import BulkError
from tests.support.bulk_inputs import bad, good

JSONL = '{"text": "one", "n": 1}\n\n{"text": "two ü"}\n'


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda content: pa.compress(content, "zstd", asbytes=True)),
    ],
)
def test_compressed_inputs_are_unpacked(
    read: Callable[..., list[InputRow]], tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    for name, content in ((f"a.csv{ending}", "text\none\n"), (f"A.JSONL{ending.upper()}", JSONL)):
        (tmp_path / name).write_bytes(pack(content.encode()))
        assert good(read(name, None))[0][2] == "one"
    (tmp_path / "plain").write_bytes(pack(b"one\ntwo"))  # whatever it is called
    assert good(read("plain", None, format="lines")) == [(1, 1, "one"), (2, 2, "two")]
    packed = pack(os.urandom(5000).hex().encode())
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 20] = b"\xff" * 20
    wrong = [packed[: len(packed) // 2], b"", b"text\n"]
    if ending != ".zst":  # pyarrow writes it without a checksum
        wrong.append(bytes(damaged))
    for content in wrong:
        (tmp_path / f"a.txt{ending}").write_bytes(content)
        with pytest.raises(BulkError, match=rf"a\.txt\{ending}: .+"):
            read(f"a.txt{ending}", None)
    bomb = pack(b"x" * (64 << 20))
    (tmp_path / f"a.txt{ending}").write_bytes(bomb)
    assert bad(read(f"a.txt{ending}", None)) == [(1, lines.TOO_LONG)]


def test_without_what_unpacks_zstd_the_error_says_how_to_get_it(
    read: Callable[..., list[InputRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt.zst").write_bytes(pa.compress(b"one", "zstd", asbytes=True))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    if sys.version_info < (3, 14):
        with pytest.raises(BulkError, match=r"zstd needs Python 3\.14 or pyarrow"):
            read("a.txt.zst", None)


@pytest.mark.parametrize("name", ["a.zip", "a.csv.ZIP", "a.tar.gz", "a.tgz", "a.jsonl.lz4", "a.7z"])
def test_archives_are_refused_by_name(read: Callable[..., list[InputRow]], name: str) -> None:
    for options in ({}, {"format": "lines"}):
        with pytest.raises(BulkError, match=f"{name}: unpack it first"):
            read(name, b"x", **options)
