"""Finds what is in a zip archive, without unpacking anything: names, and where their bytes lie.

Archives come from strangers. The directory at the end is bounded, and counts; what stands before
each member must agree with it, and no member reaches into the next.
"""

import os
import struct
from typing import BinaryIO, NamedTuple

from embedsvc.bounds import ZIP_DIRECTORY

BEGINNING = b"PK\x03\x04"
LOCAL = struct.Struct("<4s5H3L2H")
"""What stands before a member: ..., flags, method, ..., lengths of name and extra fields."""
ENTRY = struct.Struct("<4s6H3L5H2L")
"""An entry of the directory: ..., flags, method, time, date, checksum, sizes, lengths of name, of
extra fields and of a comment, ..., where the member begins."""
END = struct.Struct("<4s4H2LH")
"""The end of an archive: ..., entries, bytes and beginning of the directory, a comment's length."""
LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
"""What stands before the end where numbers have 64 bits, as torch always writes it."""
ENCRYPTED = 0x2041
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
"""Values that say: the number is elsewhere, in 64 bits."""


class BadArchive(ValueError):
    """What is wrong with an archive, in words."""


class Member(NamedTuple):
    """One of the files in an archive."""

    name: str
    beginning: int
    """Where the header before its bytes begins."""
    size: int
    plain: bool
    """Whether its bytes lie there as they are: neither compressed nor encrypted."""


class Archive:
    """An archive that is open for reading. Raises `BadArchive`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size
        at, length, count = self._directory()
        self.members = _members(self._bytes(at, length), count)
        beginnings = sorted(member.beginning for member in self.members.values())
        self._limits = dict(zip(beginnings, [*beginnings[1:], at], strict=False))
        if len(self._limits) < count:
            raise BadArchive("has members that overlap")

    def offset(self, member: Member) -> int:
        """Where the bytes of a member begin in the file."""
        header = self._bytes(member.beginning, LOCAL.size)
        mark, _, flags, method, *_, name_length, extra_length = LOCAL.unpack(header)
        name = self._bytes(member.beginning + LOCAL.size, name_length)
        if mark != BEGINNING or name != member.name.encode():
            raise BadArchive(f"has no member {member.name!r} where its directory says")
        if not member.plain or method or flags & ENCRYPTED:
            raise BadArchive(f"has its member {member.name!r} compressed or encrypted")
        offset = member.beginning + LOCAL.size + name_length + extra_length
        if offset + member.size > self._limits[member.beginning]:
            raise BadArchive(f"has a member {member.name!r} that reaches into the next")
        return offset

    def read(self, member: Member, most: int) -> bytes:
        """The bytes of a member, of which there may be so many."""
        if member.size > most:
            raise BadArchive(f"has a member {member.name!r} of {member.size} bytes, over {most}")
        return self._bytes(self.offset(member), member.size)

    def _directory(self) -> tuple[int, int, int]:
        """Where the directory begins, its bytes and its entries."""
        at = self._size - END.size
        mark, _, _, _, count, length, begin, comment = END.unpack(self._bytes(at, END.size))
        if mark != b"PK\x05\x06" or comment:
            raise BadArchive("has no directory at its end: it is cut off, download it again")
        numbers = (count, length, begin)
        if at >= LOCATOR.size + END64.size:
            mark, _, place, _ = LOCATOR.unpack(self._bytes(at - LOCATOR.size, LOCATOR.size))
            if mark == b"PK\x06\x07":
                at -= LOCATOR.size + END64.size
                mark, *_, count, length, begin = END64.unpack(self._bytes(at, END64.size))
                full = zip(numbers, (FULL16, FULL32, FULL32), (count, length, begin), strict=True)
                if (
                    mark != b"PK\x06\x06"
                    or place != at
                    or any(short not in (most, long) for short, most, long in full)
                ):
                    raise BadArchive("has two ends that do not agree")
        if begin + length != at:
            raise BadArchive("has a directory that is not where it says")
        if length > ZIP_DIRECTORY:
            raise BadArchive(f"has a directory of {length} bytes, over {ZIP_DIRECTORY}")
        return begin, length, count

    def _bytes(self, at: int, length: int) -> bytes:
        if at >= 0 and at + length <= self._size:
            self._stream.seek(at)
            found = self._stream.read(length)
            if len(found) == length:  # it may become shorter while it is read
                return found
        raise BadArchive("ends before what it should hold: it is cut off, download it again")


def _members(directory: bytes, count: int) -> dict[str, Member]:
    """The members that a directory tells of, by name."""
    found: dict[str, Member] = {}
    at = 0
    while at < len(directory):
        member, at = _entry(directory, at)
        if member.name in found:
            raise BadArchive(f"has the member {member.name[:100]!r} twice")
        found[member.name] = member
    if len(found) != count:
        raise BadArchive(f"has {len(found)} members, and says that they are {count}")
    return found


def _entry(content: bytes, at: int) -> tuple[Member, int]:
    """The member that an entry of the directory tells of, and where the next entry begins."""
    if at + ENTRY.size > len(content):
        raise BadArchive("has a directory that is cut off")
    mark, _, _, flags, method, _, _, _, packed, size, *lengths, _, _, _, begin = ENTRY.unpack_from(
        content, at
    )
    at += ENTRY.size
    end = at + sum(lengths)
    if mark != b"PK\x01\x02" or end > len(content):
        raise BadArchive("has a directory that is damaged")
    name = _name(content[at : at + lengths[0]])
    extra = content[at + lengths[0] : at + lengths[0] + lengths[1]]
    size, packed, begin = _in_64_bits(name, extra, (size, packed, begin))
    plain = method == 0 and not flags & ENCRYPTED and packed == size
    return Member(name, begin, size, plain), end


def _name(raw: bytes) -> str:
    """A name that leads nowhere else, though nothing is ever written under it."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise BadArchive(f"has a member whose name is no text: {raw[:100]!r}") from None
    if not name.isprintable() or "\\" in name or name[:1] in ("", "/") or ".." in name.split("/"):
        raise BadArchive(f"has a member whose name is not plain: {name[:100]!r}")
    return name


def _in_64_bits(name: str, extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, int, int]:
    """The numbers of an entry; those that do not fit into 32 bits are in its extra fields."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
            break
        at += 4 + length
    found: list[int] = []
    for number in numbers:
        if number == FULL32:
            if len(wide) < 8:
                raise BadArchive(f"does not say how large its member {name[:100]!r} is")
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(number)
    return found[0], found[1], found[2]
