"""Random changes to a file of torch's: to its archive, and to the pickle in it."""

import io
import random
import struct
import zipfile
from collections.abc import Callable

from tests.support.torch_files import archive, name, number, text

HOSTILE = (
    name("os", "system") + text("touch it-ran") + b"\x85R",  # a call
    name("builtins", "eval") + b"(" + text("1") + b"tR",
    text("os") + text("system") + b"\x93",
    b"(ios\nsystem\n",  # INST
    b"(cos\nsystem\no",  # OBJ
    name("os", "system") + b")\x81",  # NEWOBJ
    b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00",  # of the registry of extensions
    b"Pmodel\n", b"NQ", b"K\x07Q", b"}Q", text("storage") + b"\x85Q",  # persistent ids
    b"}b", b"N}b", b"R", b")R", b"s", b"u", b"t", b"0", b"2" * 100,
    b"\x8b\xff\xff\xff\x7f", b"\x8a\xff" + b"\xff" * 255,  # huge numbers
    b"\x95" + b"\xff" * 8, b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8,  # lengths beyond the end
    b"(" * 100_000, b"}" * 100_000, b")" + b"\x85" * 100_000,  # deep, or many
    b"".join(b"h\x00h\x00\x86q\x00" for _ in range(5000)),  # each twice the one before
    b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"N", b"\x88", b"X\x02\x00\x00\x00\xff\xfe",
    number(-1), number(2**62), b"K\x00", b".", b"",
)  # fmt: skip
"""What a pickle may have at any place."""
NAMES = ("../../evil", "/etc/passwd", "a\\b", "", "a/data.pkl", "archive/data/0", "x" * 60_000,
         "nul\0", "two\nlines", "archive/code/a.py", "archive/constants.pkl")  # fmt: skip
"""What a member may be called."""
NUMBERS = (0, 1, 2, 7, 255, 2**16 - 1, 2**31 - 1, 2**32 - 1)


def mutated(chance: random.Random, content: bytes) -> bytes:
    """A file of torch's with a change."""
    return chance.choice(CHANGES)(chance, content)


def _members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        return [(member, found.read(member)) for member in found.namelist()]


def _with_pickle(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return archive(
        (member, change(held) if member.endswith("/data.pkl") else held)
        for member, held in _members(content)
    )


def _hostile(chance: random.Random, content: bytes) -> bytes:
    def change(held: bytes) -> bytes:
        at = chance.choice((2, chance.randrange(len(held)), len(held) - 1))
        return held[:at] + chance.choice(HOSTILE) + held[at:]

    return _with_pickle(content, change)


def _other_numbers(chance: random.Random, content: bytes) -> bytes:
    """Other sizes, strides and offsets of tensors."""

    def change(held: bytes) -> bytes:
        places = [at for at in range(len(held) - 1) if held[at] == ord("K")]
        at = chance.choice(places)
        value = chance.choice((*range(30), -1, 255, 256, 2**31 - 1, 2**40, 2**62))
        return held[:at] + number(value) + held[at + 2 :]

    return _with_pickle(content, change)


def _pickle_bytes(chance: random.Random, content: bytes) -> bytes:
    def change(held: bytes) -> bytes:
        changed = bytearray(held)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at] = chance.randrange(256)
            else:
                changed[at : at + chance.randrange(1, 9)] = b""
        return bytes(changed)

    return _with_pickle(content, change)


def _other_members(chance: random.Random, content: bytes) -> bytes:
    members = _members(content)
    at = chance.randrange(len(members))
    match chance.randrange(5):
        case 0:
            del members[at]
        case 1:
            members.append(members[at])
        case 2:
            members[at] = (chance.choice(NAMES), members[at][1])
        case 3:
            members.append((chance.choice(NAMES), b"x"))
        case _:
            members[at] = (members[at][0], members[at][1][:-1])
    return archive(members, wide=chance.random() < 0.5)


def _directory(chance: random.Random, content: bytes) -> bytes:
    """Other numbers at the end, where an archive says what is where."""
    changed = bytearray(content)
    begin = content.index(b"PK\1\2")
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(begin, len(changed) - 4)
        if chance.random() < 0.5:
            changed[at] = chance.randrange(256)
        else:
            struct.pack_into("<I", changed, at, chance.choice(NUMBERS))
    return bytes(changed)


def _bytes(chance: random.Random, content: bytes) -> bytes:
    """Bytes of the file changed, left out, or cut off."""
    at = chance.randrange(len(content))
    match chance.randrange(4):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + content[at + chance.randrange(1, 100) :]
        case 2:
            return content[:at] + b"\0" * chance.randrange(1, 100) + content[at:]
        case _:
            return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]


CHANGES = (_hostile, _hostile, _other_numbers, _other_numbers, _pickle_bytes, _other_members,
           _directory, _bytes)  # fmt: skip
