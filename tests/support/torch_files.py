"""Writes files as torch.save does, opcode by opcode, so that no test needs torch."""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

STORAGES = {
    "<f8": "DoubleStorage",
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "|u1": "ByteStorage",
}
"""torch's names of storages, by NumPy's of types."""
PROTOCOL = b"\x80\x02"
STOP = b"."
ALIGNED = 64
"""The bytes of each member of an archive begin at a multiple of this."""

# The parts of a pickle


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def name(module: str, inside: str) -> bytes:
    return f"c{module}\n{inside}\n".encode()


def values(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def numbers(counts: Iterable[int]) -> bytes:
    return values(*map(number, counts))


def storage(kind: str, key: str, count: int) -> bytes:
    parts = (text("storage"), name("torch", kind), text(key), text("cpu"), number(count))
    return values(*parts) + b"Q"


def tensor(stored: bytes, shape: Iterable[int], strides: Iterable[int], offset: int = 0) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    parts = (stored, number(offset), numbers(shape), numbers(strides), b"\x89", hooks)
    return name("torch._utils", "_rebuild_tensor_v2") + values(*parts) + b"R"


def parameter(of: bytes) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_parameter") + values(of, b"\x88", hooks) + b"R"


def state_dict(items: Mapping[str, bytes]) -> bytes:
    """A whole pickle, of tensors by their names."""
    pairs = b"".join(text(key) + value for key, value in items.items())
    made = name("collections", "OrderedDict") + b")R(" + pairs + b"u"
    versions = b"}" + text("_metadata") + b"}" + text("") + b"}" + text("version") + b"K\x01sss"
    return PROTOCOL + made + versions + b"b" + STOP


# The archive


def archive(members: Iterable[tuple[str, bytes]], *, wide: bool = True) -> bytes:
    """A zip archive of members as they are; with numbers of 64 bits at its end if `wide`."""
    out, directory, count = bytearray(), bytearray(), 0
    for member, content in members:
        raw, begin, checksum = member.encode(), len(out), zlib.crc32(content)
        room = -(begin + 30 + len(raw) + 4) % ALIGNED
        padding = struct.pack("<2s2H", b"FB", room, 0)[:4] + b"Z" * room
        out += struct.pack("<4s5H3L2H", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, len(raw), 4 + room)
        out += raw + padding + content
        out += struct.pack("<4s3L", b"PK\7\x08", checksum, len(content), len(content))
        sizes = (checksum, len(content), len(content), len(raw), 0, 0, 0, 0, 0, begin)
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0, 0, 0x808, 0, 0, 0, *sizes) + raw
        count += 1
    begin, length = len(out), len(directory)
    out += directory
    if wide:
        at = len(out)
        out += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 0x31E, 45, 0, 0, count, count, length, begin
        )
        out += struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    return bytes(out + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, length, begin, 0))


def torch_file(pickled: bytes, storages: Iterable[bytes], *, wide: bool = True) -> bytes:
    """An archive of such a pickle, whose storages have the keys `0`, `1` and so on."""
    data = [(f"archive/data/{key}", content) for key, content in enumerate(storages)]
    version, order = ("archive/version", b"3\n"), ("archive/byteorder", b"little")
    return archive([("archive/data.pkl", pickled), order, *data, version], wide=wide)


def pack(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A file of these tensors."""
    items: dict[str, bytes] = {}
    for key, (tensor_name, value) in enumerate(tensors.items()):
        stored = storage(STORAGES[value.dtype.str], str(key), value.size)
        strides = [step // value.itemsize for step in np.ascontiguousarray(value).strides]
        items[tensor_name] = tensor(stored, value.shape, strides[: value.ndim])
    return torch_file(state_dict(items), [value.tobytes() for value in tensors.values()])


def as_torch(folder: Path, shards: int = 1) -> Path:
    """Put torch's files in place of the safetensors of a checkpoint and of its modules."""
    for file in [*folder.rglob("model.safetensors")]:
        tensors = load_file(file)
        file.unlink()
        if shards == 1 or file.parent != folder:
            (file.parent / "pytorch_model.bin").write_bytes(pack(tensors))
            continue
        listed: dict[str, str] = {}
        for part in range(shards):
            shard = f"pytorch_model-{part + 1:05}-of-{shards:05}.bin"
            some = dict(list(tensors.items())[part::shards])
            (folder / shard).write_bytes(pack(some))
            listed |= dict.fromkeys(some, shard)
        index = {"metadata": {}, "weight_map": listed}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder
