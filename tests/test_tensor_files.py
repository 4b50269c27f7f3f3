"""Files of weights, and their headers: one may lie, be too large, or promise more than there is."""

import json
import os
from pathlib import Path

import pytest

from embedsvc import bounds
from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.tensor_files import weight_files
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import write_bert
from tests.support.loading import refused


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def write_header(folder: Path, header: bytes, data: bytes = b"\0" * 8) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return file


HUGE = [2**62, 2**62]
HEADERS: dict[str, tuple[bytes, str]] = {
    "no json": (b"hello", "invalid JSON"),
    "array": (b"[]", "invalid JSON"),
    "overlap": (json.dumps({"a": entry(), "b": entry()}).encode(), "invalid offset"),
    "hole": (json.dumps({"a": entry(shape=[1], offsets=[4, 8])}).encode(), "invalid offset"),
    "beyond": (json.dumps({"a": entry(shape=[4], offsets=[0, 16])}).encode(), "not fully covered"),
    "left over": (
        json.dumps({"a": entry(shape=[1], offsets=[0, 4])}).encode(),
        "not fully covered",
    ),
    "backwards": (json.dumps({"a": entry(offsets=[8, 0])}).encode(), "invalid offset"),
    "negative": (json.dumps({"a": entry(offsets=[-8, 0])}).encode(), "invalid JSON"),
    "negative shape": (json.dumps({"a": entry(shape=[-2])}).encode(), "invalid JSON"),
    "huge without numbers": (
        json.dumps({"a": entry(), "b": entry(shape=[0, *[2**40] * 2], offsets=[8, 8])}).encode(),
        "tensor `b` holds F32 in shape",
    ),
    "overflow": (json.dumps({"a": entry(shape=HUGE)}).encode(), "overflow"),
    "lie": (json.dumps({"a": entry("F64")}).encode(), "a"),
    "unknown type": (json.dumps({"a": entry("F128")}).encode(), "invalid JSON"),
    "type not read": (json.dumps({"a": entry("F8_E4M3", [8])}).encode(), "`a` holds F8_E4M3"),
    "dimensions": (
        json.dumps({"a": entry(shape=[1] * 40 + [2])}).encode(),
        "`a` holds F32 in shape",
    ),
    "twice": (
        json.dumps({"a": entry(), "b": entry()}).replace('"b"', '"a"').encode(),
        "a name is there twice",
    ),
    "deep": (b'{"a":' + b"[" * 3000, "recursion"),
    "not utf-8": (b'{"\xff": 1}', "invalid"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies_is_refused_by_file(tmp_path: Path, kind: str) -> None:
    header, said = HEADERS[kind]
    file = write_header(tmp_path, header)
    with pytest.raises(CheckpointError, match=said) as caught:
        Tensors("x", tmp_path)
    assert str(caught.value).startswith(f"model `x`: {file}: ")


@pytest.mark.parametrize("length", [bounds.TENSOR_HEADER + 1, 90 << 20, 2**63, 2**64 - 1])
def test_a_header_beyond_its_bound_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b"{}")
    os.truncate(file, 200 << 20)
    opened: list[str] = []
    monkeypatch.setattr(
        "embedsvc.checkpoints.tensor_files.safe_open", lambda file, **_: opened.append(file)
    )
    with pytest.raises(CheckpointError, match=f"has a header of {length} bytes"):
        Tensors("x", tmp_path)
    assert opened == []


def test_a_file_that_ends_too_early_is_refused_by_file(tmp_path: Path) -> None:
    file = write_bert(tmp_path) / "model.safetensors"
    whole = file.read_bytes()
    tensors = open_checkpoint(Card(id="x", path=tmp_path)).tensors()
    file.write_bytes(whole[:-1000])  # after its header was read
    name, last = max(tensors.entries().items(), key=lambda each: each[1].offset)
    with pytest.raises(CheckpointError, match=rf"`{name}`: \S+model\.safetensors ends before"):
        tensors.take(name, *last.shape)
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert f"{file}: " in refused(tmp_path)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["model.safetensors", "weights.00.safetensors"], ["model.safetensors"]),
        (["weights.safetensors", "weights.00.safetensors"], ["weights.safetensors"]),
        # As in mlx-community/multilingual-e5-small-mlx.
        (["weights.00.safetensors"], ["weights.00.safetensors"]),
        (
            [f"weights.0{n}.safetensors" for n in (2, 0, 1)],
            [f"weights.0{n}.safetensors" for n in (0, 1, 2)],
        ),
        (["weights.01.safetensors"], None),
        (["weights.0.safetensors", "others.safetensors"], None),
    ],
)
def test_the_files_that_hold_the_weights(
    tmp_path: Path, there: list[str], expected: list[str] | None
) -> None:
    for name in there:
        (tmp_path / name).touch()
    if expected is None:
        with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
            weight_files("x", tmp_path)
    else:
        assert [file.name for file in weight_files("x", tmp_path)] == expected
