"""Random changes to the files of a checkpoint. The same seed makes the same change."""

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.support.torch_mutations import mutated

JSON_FILES = (
    "config.json", "config.json", "config.json", "modules.json", "1_Pooling/config.json",
    "3_Dense/config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "tokenizer.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "1_LogitScore/config.json", "4_Dense/config.json",
    "pytorch_model.bin.index.json",
)  # fmt: skip
"""The files that are changed, and their relative frequencies."""
TEXT_FILES = ("chat_template.jinja",)
"""Those that are changed byte by byte."""
WEIGHTS = ("model.safetensors", "model.safetensors", "3_Dense/model.safetensors")
TORCH_WEIGHTS = (
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "3_Dense/pytorch_model.bin",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1.5, -0.5, 1e-300, 1e300, 2**31 - 1, 2**31, 2**32,
    -(2**31), 2**53, 2**63 - 1, 2**64, 10**9, 10**30, "", "a", "7", "NaN", "gelu", "relu", "\x00",
    "\x1b[2J\n", "../../x", "/", "é" * 300, "x" * 70_000, [], {}, [[]], [None], {"": None},
    [0] * 5000,
    ["a"] * 3, {"a": {"b": [1]}}, [{}], "full_attention", "mean", ["mean"] * 40, "alibi", "bert",
)  # fmt: skip
LITERALS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000, b"[" * 50_000, b'{"a":' * 9000,
    b"0x10", b"01", b"\xff", b'"\\ud83d"', b"nul", b"")  # fmt: skip
BEGINNINGS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", b"<!doctype html><p>",
    b"GGUF\x03\0\0\0", b"PK\x03\x04\0\0\x08\x08\0\0", b"\x80\x02}q\0.", b"\x1f\x8b\x08\0\1\2\3",
    b"", b"\xff\xfe{\0}\0", b"Entry not found", b"\0" * 4096,
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U32", "U8", "BOOL", "F8_E4M3", "F4", "C64",
          "", "f4", 7)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every list and object in a JSON value, with each of its indices or keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        found += [(each, key) for key in keys]
        waiting += [each[key] for key in keys if isinstance(each[key], dict | list)]
    return found


def change_json(chance: random.Random, value: Any) -> None:
    """Change, delete or rename one or a few values of a JSON document."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        known = places(value)
        if not known:
            return
        inside, key = chance.choice(known)
        other, from_key = chance.choice(known)
        match chance.randrange(8):
            case 0:
                del inside[key]
            case 1:
                inside[key] = deepcopy(other[from_key])
            case 2 if isinstance(inside, dict):
                inside[str(key) + chance.choice(("_", " ", "\0", "s"))] = inside.pop(key)
            case 3 if isinstance(inside, list):
                inside.extend(deepcopy(inside[:] * chance.choice((1, 3))))
            case 4 if isinstance(inside[key], int | float):
                number = inside[key]
                inside[key] = chance.choice(
                    (-number, number + 1, number - 1, number * 2, number / 2)
                )
            case _:
                inside[key] = deepcopy(chance.choice(VALUES))


def mutate_json(chance: random.Random, folder: Path) -> str:
    file = folder / chance.choice(JSON_FILES)
    if not file.exists():
        return mutate_file(chance, folder)
    value = json.loads(file.read_text(encoding="utf-8"))
    try:
        change_json(chance, value)
        text = json.dumps(value)
    except (ValueError, IndexError, KeyError, RecursionError):
        return mutate_bytes(chance, folder)
    file.write_text(text, encoding="utf-8")
    return f"json {file.relative_to(folder)}"


def mutate_literal(chance: random.Random, folder: Path) -> str:
    """Put a value into a JSON file that JSON does not allow, or that is there already."""
    file = folder / chance.choice(JSON_FILES)
    if not file.exists():
        return mutate_file(chance, folder)
    text = file.read_bytes()
    colons = [i for i in range(len(text)) if text[i] == ord(":")]
    if not colons:
        return mutate_bytes(chance, folder)
    at = chance.choice(colons) + 1
    if chance.random() < 0.2:
        begin = text.rfind(b'"', 0, max(text.rfind(b'"', 0, at) - 1, 0))
        key = text[max(begin, 0) : at]
        text = text[: max(begin, 0)] + key + b"0," + text[max(begin, 0) :]
    else:
        text = text[:at] + chance.choice(LITERALS) + text[at:]
    file.write_bytes(text)
    return f"literal {file.relative_to(folder)}"


def mutate_bytes(chance: random.Random, folder: Path) -> str:
    """Change, delete or repeat bytes of a file, or cut it off."""
    file = folder / chance.choice((*JSON_FILES, *weights(folder), *TEXT_FILES))
    if not file.exists():
        return mutate_file(chance, folder)
    content = bytearray(file.read_bytes())
    near = len(content) if chance.random() < 0.5 else min(len(content), 3000)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        at = chance.randrange(near) if near else 0
        match chance.randrange(5):
            case 0:
                content[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                content[at : at + chance.randrange(1, 40)] = b""
            case 2:
                content[at:at] = content[at : at + chance.randrange(1, 40)]
            case 3:
                content[at : at + 1] = bytes(
                    b ^ (1 << chance.randrange(8)) for b in content[at : at + 1]
                )
            case _:
                if chance.random() < 0.3:
                    del content[at:]
        near = min(near, len(content))
    file.write_bytes(content)
    return f"bytes {file.relative_to(folder)}"


def mutate_file(chance: random.Random, folder: Path) -> str:
    """Remove a file, or put one of another kind, a folder or a link in its place."""
    file = folder / chance.choice((*JSON_FILES, *weights(folder)))
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    actions: list[Callable[[], object]] = [
        lambda: None,
        lambda: os.mkfifo(file),
        file.mkdir,
        lambda: file.symlink_to(chance.choice(("/dev/zero", "/dev/full", "nowhere", file.name))),
        lambda: file.write_bytes(chance.choice(BEGINNINGS)),
        lambda: (file.touch(), os.truncate(file, chance.choice((1, 9, 1 << 20, 1 << 33)))),
    ]
    number = chance.randrange(len(actions))
    actions[number]()
    return f"file {file.relative_to(folder)} {number}"


def weights(folder: Path) -> tuple[str, ...]:
    """The files of weights that there are, else those that there may be."""
    return tuple(n for n in (*WEIGHTS, *TORCH_WEIGHTS) if (folder / n).exists()) or WEIGHTS


def mutate_weights(chance: random.Random, folder: Path) -> str:
    """Write something false into a file of weights, of either kind."""
    file = folder / chance.choice(weights(folder))
    if not file.exists():
        return mutate_file(chance, folder)
    if file.suffix != ".bin":
        return mutate_header(chance, file, folder)
    file.write_bytes(mutated(chance, file.read_bytes()))
    return f"archive {file.relative_to(folder)}"


def mutate_header(chance: random.Random, file: Path, folder: Path) -> str:
    """Write something false into the header of a safetensors file."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    name, other = chance.choice(names), chance.choice(names)
    about = header[name]
    match chance.randrange(10):
        case 0:
            about["dtype"] = chance.choice(DTYPES)
        case 1:
            about["shape"] = list(reversed(about["shape"]))
        case 2:
            about["shape"] = [*about["shape"], chance.choice((0, 1, 2, -1, 2**40, 2**63))]
        case 3:
            at = chance.randrange(2)
            about["data_offsets"][at] += chance.choice((-4, 4, 1, -1, 2**40, -(2**40), 2**63))
        case 4:
            header[name], header[other] = header[other], header[name]
        case 5:
            header[chance.choice(("", "\0", "x" * 5000, "bert." + name, name + "_", "mapping"))] = (
                header.pop(name)
            )
        case 6:
            about["shape"] = [1] * chance.choice((9, 40, 3000)) + about["shape"]
        case 7:
            header["__metadata__"] = chance.choice(({}, {"format": "pt"}, {"a": 7}, [], "x", None))
        case 8:
            change_json(chance, header)
        case _:
            scale = chance.choice((b"\0", b"\xff", b"\x7f"))  # zeros, not numbers, huge numbers
            begin, end = about["data_offsets"]
            data = data[:begin] + scale * (end - begin) + data[end:]
    text = json.dumps(header).encode()
    size = (
        len(text) if chance.random() < 0.9 else chance.choice((0, 7, len(text) - 1, 2**40, 2**63))
    )
    file.write_bytes(size.to_bytes(8, "little") + text + data)
    return f"header {file.relative_to(folder)}"


def harmless(chance: random.Random, folder: Path) -> str:
    """Change something that may go unnoticed."""
    number = chance.randrange(5)
    if number == 0:
        for name in ("README.md", "pipe", "onnx"):
            os.mkfifo(folder / name)
    for name in dict.fromkeys(JSON_FILES) if number else ():
        file = folder / name
        if not file.exists():
            continue
        value = json.loads(file.read_text(encoding="utf-8"))
        if number == 1 and isinstance(value, dict) and name == "config.json":
            value["x_unheard_of"] = chance.choice(VALUES)
        if number == 2 and isinstance(value, dict) and not name.startswith("added"):
            value = dict(reversed(value.items()))
        text = json.dumps(value, indent=chance.choice((None, 3)))
        mark = "\ufeff" if number == 3 and name != "tokenizer.json" else ""
        file.write_text(mark + text + "\n \n", encoding="utf-8")
    return f"harmless {number}"


MUTATIONS = (
    mutate_json, mutate_json, mutate_json, mutate_literal, mutate_bytes, mutate_file,
    mutate_weights, mutate_weights, harmless,
)  # fmt: skip


def mutate(seed: int, folder: Path) -> str:
    """Make one change to the checkpoint in a folder, and return what it was."""
    chance = random.Random(seed)
    return chance.choice(MUTATIONS)(chance, folder)
