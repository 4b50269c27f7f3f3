"""What is in an archive, and where; archives that lie, refused."""

import io
import struct
import zipfile
from pathlib import Path

import pytest

from embedsvc.checkpoints.zip_members import Archive, BadArchive
from tests.support.torch_files import archive

PLAIN = archive([("a/b", b"hello"), ("a/c", b"")])
NARROW = archive([("a/b", b"hello"), ("a/c", b"")], wide=False)


def opened(folder: Path, content: bytes) -> dict[str, bytes]:
    """The members of an archive, all of them read."""
    file = folder / "file"
    file.write_bytes(content)
    with file.open("rb") as stream:
        found = Archive(stream)
        return {name: found.read(member, 1000) for name, member in found.members.items()}


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(BadArchive) as caught:
        opened(folder, content)
    return str(caught.value)


def changed(content: bytes, at: int, form: str, value: int) -> bytes:
    out = bytearray(content)
    struct.pack_into(form, out, at if at >= 0 else len(out) + at, value)
    return bytes(out)


@pytest.mark.parametrize("content", [PLAIN, NARROW])
def test_members_are_read_from_their_place(tmp_path: Path, content: bytes) -> None:
    assert opened(tmp_path, content) == {"a/b": b"hello", "a/c": b""}


def test_archives_of_another_writer_are_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a/b", b"hello")
        with file.open("a/c", "w", force_zip64=True) as member:
            member.write(b"wide")
    assert opened(tmp_path, out.getvalue()) == {"a/b": b"hello", "a/c": b"wide"}


def test_sizes_of_64_bits_are_read_and_held_against_the_file(tmp_path: Path) -> None:
    """As they are where a file has more than 4 GB."""

    def wide(size: int) -> bytes:
        name, content = b"a", b"hello"
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 0, 0, 0, 0, 0, 0, 0, 0, 1, 0) + name + content
        extra = struct.pack("<2H3Q", 1, 24, size, size, 0)
        full = 0xFFFFFFFF
        entry = struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, full, full, 1, 28, 0, 0, 0, 0, full
        )
        entry += name + extra
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)
        return local + entry + end

    assert opened(tmp_path, wide(5)) == {"a": b"hello"}
    assert "'a' that reaches into the next" in refusal(tmp_path, wide(6))
    assert "'a' of 18446744073709551615 bytes, over 1000" in refusal(tmp_path, wide(2**64 - 1))
    assert "does not say how large its member 'a' is" in refusal(
        tmp_path, wide(5).replace(struct.pack("<2H", 1, 24), struct.pack("<2H", 2, 24))
    )


@pytest.mark.parametrize(
    "name", ["../b", "a/../../b", "/a", "", "a\\b", "a\0b", "a\nb", "\x1b[2J", "a/.."]
)
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    assert "has a member whose name is not plain" in refusal(tmp_path, archive([(name, b"x")]))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "name is no text" in refusal(tmp_path, PLAIN.replace(b"a/b", b"a/\xff"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "ends before what it should hold"),
        (b"PK\3\4", "ends before what it should hold"),
        (PLAIN[:-1], "has no directory at its end: it is cut off"),
        (PLAIN + b"\0", "has no directory at its end"),
        (changed(PLAIN, -2, "<H", 1), "has no directory at its end"),
        (archive([("a", b"x"), ("a", b"y")]), "has the member 'a' twice"),
        (changed(PLAIN, -12, "<H", 3), "has two ends that do not agree"),
        (changed(PLAIN, -6, "<I", 3), "has two ends that do not agree"),
        (changed(PLAIN, -34, "<Q", 3), "has two ends that do not agree"),
        (changed(PLAIN, -34, "<Q", 2**64 - 1), "has two ends that do not agree"),
        (changed(NARROW, -12, "<H", 3), "has 2 members, and says that they are 3"),
        (changed(NARROW, -6, "<I", 3), "has a directory that is not where it says"),
        (changed(NARROW, -10, "<I", 2**32 - 1), "has a directory that is not where it says"),
        (PLAIN.replace(b"PK\1\2", b"PK\1\3"), "has a directory that is damaged"),
        (PLAIN.replace(b"PK\3\4", b"PK\3\5"), "has no member 'a/b' where its directory says"),
        (PLAIN.replace(b"a/b", b"a/x", 1), "has no member 'a/b' where its directory says"),
    ],
)
def test_an_archive_that_lies_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path, content)


def entry(content: bytes, number: int = 0) -> int:
    """Where an entry of the directory begins."""
    at = -1
    for _ in range(number + 1):
        at = content.index(b"PK\1\2", at + 1)
    return at


@pytest.mark.parametrize(
    ("offset", "form", "value", "said"),
    [
        (8, "<H", 1, "compressed or encrypted"),
        (10, "<H", 8, "compressed or encrypted"),
        (20, "<I", 4, "compressed or encrypted"),
        (28, "<H", 60_000, "has a directory that is damaged"),
        (42, "<I", 1, "ends before what it should hold"),
        (42, "<I", 2**31, "ends before what it should hold"),
        (42, "<I", 2**32 - 1, "does not say how large its member 'a/b' is"),
    ],
)
def test_an_entry_that_lies_is_refused(
    tmp_path: Path, offset: int, form: str, value: int, said: str
) -> None:
    assert said in refusal(tmp_path, changed(PLAIN, entry(PLAIN) + offset, form, value))


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    second = struct.unpack_from("<I", PLAIN, entry(PLAIN, 1) + 42)[0]
    larger = changed(PLAIN, entry(PLAIN) + 20, "<I", second)
    larger = changed(larger, entry(PLAIN) + 24, "<I", second)
    assert "has a member 'a/b' that reaches into the next" in refusal(tmp_path, larger)
    same = changed(PLAIN, entry(PLAIN, 1) + 42, "<I", 0)
    assert "has members that overlap" in refusal(tmp_path, same)


def test_a_directory_is_bounded(tmp_path: Path) -> None:
    many = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 16) * 200_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(many), 0, 0)
    assert "has a directory of 9200000 bytes, over 8388608" in refusal(tmp_path, many + end)


def test_a_member_is_read_up_to_a_bound(tmp_path: Path) -> None:
    said = "has a member 'a' of 1001 bytes, over 1000"
    assert said in refusal(tmp_path, archive([("a", b"x" * 1001)]))


def test_a_file_that_becomes_shorter_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(PLAIN)
    with file.open("rb", buffering=0) as stream:
        found = Archive(stream)
        file.write_bytes(PLAIN[:20])
        with pytest.raises(BadArchive, match="ends before what it should hold"):
            found.read(found.members["a/b"], 1000)


def test_what_is_compressed_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", b"x" * 500)
    assert "has its member 'a' compressed or encrypted" in refusal(tmp_path, out.getvalue())
