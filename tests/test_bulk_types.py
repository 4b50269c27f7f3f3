"""Every type that Parquet holds can be kept: in Parquet as it is, in JSON as a documented text."""

import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.outputs import OUTPUTS
from embedsvc.bulk.rows import Columns
from embedsvc.errors import BulkError
from tests.support.bulk import FakeEmbedder, go

YEAR = 366 * 86_400


def stored(kind: Any, values: Sequence[Any], storage: Any) -> Any:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, storage))


def dictionary(values: Sequence[Any], index: Any, *, ordered: bool = False) -> Any:
    return (
        pa.array(values)
        .dictionary_encode()
        .cast(pa.dictionary(index, pa.string(), ordered=ordered))
    )


BYTES = b"\0\xff"
ARRAYS: dict[str, Any] = {
    "null": (pa.nulls(2), None),
    "bool": (pa.array([True, None]), True),
    "int8": (pa.array([-1, None], pa.int8()), -1),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), 2**64 - 1),
    "half": (pa.array([1.5, None], pa.float16()), 1.5),
    "float": (pa.array([0.5, None], pa.float32()), 0.5),
    "infinity": (pa.array([float("inf"), None]), None),
    "decimal32": (pa.array([Decimal("1.5"), None], pa.decimal32(5, 2)), "1.50"),
    "decimal256": (pa.array([Decimal("1.5"), None], pa.decimal256(60, 2)), "1.50"),
    "date": (pa.array([1, None], pa.date32()), "1970-01-02"),
    "far date": (pa.array([2**30, None], pa.date32()), str(2**30)),
    "time ms": (pa.array([1, None], pa.time32("ms")), "00:00:00.001000"),
    "time ns": (pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
    "timestamp": (pa.array([YEAR, None], pa.timestamp("ms")), "1970-01-01T08:47:02.400000"),
    "timestamp ns": (pa.array([1000, None], pa.timestamp("ns")), "1970-01-01T00:00:00.000001"),
    "zone": (
        pa.array([1, None], pa.timestamp("us", "Europe/Berlin")),
        "1970-01-01T01:00:00.000001+01:00",
    ),
    "offset": (
        pa.array([1, None], pa.timestamp("us", "+02:00")),
        "1970-01-01T02:00:00.000001+02:00",
    ),
    "no zone": (
        pa.array([1, None], pa.timestamp("us", "Mars/Base")),
        "1970-01-01 00:00:00.000001Z",
    ),
    "far": (pa.array([2**61, None], pa.timestamp("us")), str(2**61)),
    "duration": (pa.array([90, None], pa.duration("s")), "PT90S"),
    "duration ns": (pa.array([1, None], pa.duration("ns")), "1"),
    "far duration": (pa.array([2**62, None], pa.duration("s")), str(2**62)),
    "binary": (pa.array([BYTES, None]), "AP8="),
    "large binary": (pa.array([BYTES, None], pa.large_binary()), "AP8="),
    "fixed binary": (pa.array([BYTES, None], pa.binary(2)), "AP8="),
    "binary view": (pa.array([BYTES, None], pa.binary_view()), "AP8="),
    "string": (pa.array(["x\u2028", None]), "x\u2028"),
    "large string": (pa.array(["x", None], pa.large_string()), "x"),
    "string view": (pa.array(["x" * 50, None], pa.string_view()), "x" * 50),
    "no string": (
        pa.Array.from_buffers(
            pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\2\0\0\0"), pa.py_buffer(BYTES)]
        ),
        "\0\\xff",
    ),
    "list": (pa.array([["x", None], None]), ["x", None]),
    "large list": (pa.array([[1], None], pa.large_list(pa.int8())), [1]),
    "fixed list": (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [1, 2]),
    "list view": (pa.array([[1], None], pa.list_view(pa.int8())), [1]),
    "list of nothing": (pa.array([[None], []], pa.list_(pa.null())), [None]),
    "lists": (pa.array([[[1], None], None]), [[1], None]),
    "struct": (pa.array([{"a": BYTES, "b": None}, None]), {"a": "AP8=", "b": None}),
    "list of structs": (pa.array([[{"a": Decimal(1)}], None]), [{"a": "1"}]),
    "same names": (
        pa.StructArray.from_arrays([pa.array([1, 2]), pa.array(["x", "y"])], ["a", "a"]),
        [["a", 1], ["a", "x"]],
    ),
    "map": (
        pa.array([[("k", [1]), ("k", None)], None], pa.map_(pa.string(), pa.list_(pa.int8()))),
        [["k", [1]], ["k", None]],
    ),
    "dictionary": (dictionary(["a", None], pa.int8()), "a"),
    "ordered": (dictionary(["a", "b"], pa.int32(), ordered=True), "a"),
    "list of words": (
        pa.ListArray.from_arrays(pa.array([0, 1, 2]), dictionary(["a", "b"], pa.int32())),
        ["a"],
    ),
    "uuid": (
        stored(pa.uuid(), [uuid.UUID(int=5).bytes, None], pa.binary(16)),
        str(uuid.UUID(int=5)),
    ),
    "json": (stored(pa.json_(), ['{"a":1}', None], pa.string()), '{"a":1}'),
    "bool8": (stored(pa.bool8(), [1, None], pa.int8()), 1),
    "tensor": (
        stored(pa.fixed_shape_tensor(pa.int8(), [2]), [[1, 2], None], pa.list_(pa.int8(), 2)),
        [1, 2],
    ),
    "opaque": (stored(pa.opaque(pa.binary(), "t", "v"), [BYTES, None], pa.binary()), "AP8="),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with a column of every type; its second and third row have no text."""
    texts = pa.array(["one", "two", "", None])
    columns = {name: pa.concat_arrays([array, array]) for name, (array, _) in ARRAYS.items()}
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": texts} | columns), file)
    return file


KEPT = Columns("text", None, tuple(ARRAYS))


def test_every_type_stays_what_it_is_in_parquet(source: Path, tmp_path: Path) -> None:
    go(FakeEmbedder(), tmp_path / "out.parquet", source, columns=KEPT)
    before, after = pq.read_table(source), pq.read_table(tmp_path / "out.parquet")
    for name in ARRAYS:
        assert after.schema.field(name).type == before.schema.field(name).type, name
        assert after[name].equals(before[name].slice(0, 2)), name


@pytest.mark.parametrize("ending", [".jsonl", ".npy"])
def test_every_type_is_told_in_json(source: Path, tmp_path: Path, ending: str) -> None:
    go(FakeEmbedder(), tmp_path / f"out{ending}", source, columns=KEPT)
    lines = tmp_path / ("out.jsonl" if ending == ".jsonl" else "out.npy.rows.jsonl")
    row = json.loads(lines.read_bytes().split(b"\n")[0])
    rejects = (tmp_path / f"out{ending}.rejects.jsonl").read_bytes().split(b"\n")
    bad = json.loads(rejects[0])
    for name, (_, told) in ARRAYS.items():
        assert row[name] == bad["row"][name] == told, name


@pytest.mark.parametrize("name", ARRAYS)
def test_every_type_can_be_an_id(source: Path, tmp_path: Path, name: str) -> None:
    for ending, output in OUTPUTS.items():
        path = tmp_path / f"out{ending}"
        go(FakeEmbedder(), path, source, columns=Columns("text", name))
        found = output.open(path).rows([0])[0]
        assert found["text"] is not None
    assert pq.read_table(tmp_path / "out.parquet")["id"].equals(
        pq.read_table(source, columns=[name])[name].slice(0, 2)
    )


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_no_text_is_set_aside_whatever_it_is(
    source: Path, tmp_path: Path, name: str
) -> None:
    summary = go(FakeEmbedder(), tmp_path / "out.jsonl", source, columns=Columns(name))
    strings = ("string", "large string", "string view", "json", "dictionary", "ordered")
    column = pq.read_table(source, columns=[name])[name]
    texts = len(column) - column.null_count if name in strings else 0
    assert summary.after.rows == texts
    assert summary.after.items == 4


def test_a_dictionary_is_not_written_with_every_row(tmp_path: Path) -> None:
    words = pa.array([f"word {i}" * 20 for i in range(10_000)])
    some = pa.DictionaryArray.from_arrays(pa.array([0, 9_999] * 50), words)
    pq.write_table(pa.table({"text": ["x"] * 100, "word": some}), tmp_path / "in.parquet")
    sizes: list[int] = []

    class Watching(FakeEmbedder):
        async def embed(self, *given: Any) -> Any:
            sizes.append((tmp_path / "out.parquet.partial").stat().st_size)
            return await super().embed(*given)

    go(
        Watching(),
        tmp_path / "out.parquet",
        tmp_path / "in.parquet",
        columns=Columns(keep=("word",)),
    )
    assert max(sizes) < 100_000
    assert pq.read_table(tmp_path / "out.parquet")["word"].to_pylist() == some.to_pylist()


def test_types_in_types_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsvc.bulk.inputs.parquet.DEEPEST", 30)  # pyarrow has one now, at 100
    kind = pa.int8()
    for _ in range(30):
        kind = pa.struct([("a", kind)])
    pq.write_table(pa.table({"text": ["x"], "deep": pa.nulls(1, kind)}), tmp_path / "in.parquet")
    with pytest.raises(BulkError, match=r"in\.parquet: column `deep`: types 30 deep or more"):
        go(
            FakeEmbedder(),
            tmp_path / "out.jsonl",
            tmp_path / "in.parquet",
            columns=Columns(keep=("deep",)),
        )
    go(FakeEmbedder(), tmp_path / "out.jsonl", tmp_path / "in.parquet")


def test_a_text_without_end_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedsvc.bulk.rows.LONGEST_TEXT", 1 << 20)
    texts = ["x" * (1 << 20), "y" * ((1 << 20) + 1), "z"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    assert go(FakeEmbedder(), tmp_path / "out.npy", tmp_path / "in.parquet").after.rows == 2
    bad = json.loads((tmp_path / "out.npy.rejects.jsonl").read_text())
    assert (bad["line"], bad["reason"]) == (2, "`text` is longer than 1 Mi characters")
    assert bad["row"] == {"text": "y" * 2000}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.array([1], pa.int8()), pa.array([2**40]), [1, 2**40]),
        (pa.array([-1]), pa.array([2**64 - 1], pa.uint64()), ["-1", str(2**64 - 1)]),
        (pa.array([1]), pa.array([0.5]), [1.0, 0.5]),
        (pa.array([1], pa.timestamp("ns")), pa.array([2**61], pa.timestamp("us")), None),
        (
            pa.array([Decimal("1.5")]),
            pa.array([Decimal("20.25")]),
            [Decimal("1.50"), Decimal("20.25")],
        ),
        (pa.array([["a"]]), pa.array([[1]]), ['["a"]', "[1]"]),
        (pa.array([{"a": 1}]), pa.array([{"b": 2}]), ['{"a":1}', '{"b":2}']),
        (pa.array([b"\xff"]), pa.array(["text"]), ["/w==", "text"]),
        (pa.array([None], pa.null()), pa.array([[1]]), [None, [1]]),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), ["a", "b"]),
    ],
)
def test_types_of_two_inputs_come_together_without_loss(
    tmp_path: Path, one: Any, other: Any, expected: list[Any] | None
) -> None:
    for name, array in (("a", one), ("b", other)):
        pq.write_table(pa.table({"text": [name], "n": array}), tmp_path / f"{name}.parquet")
    files = tmp_path / "a.parquet", tmp_path / "b.parquet"
    go(FakeEmbedder(), tmp_path / "out.parquet", *files, columns=Columns(keep=("n",)))
    found = pq.read_table(tmp_path / "out.parquet")["n"].to_pylist()
    told = ["1970-01-01 00:00:00.000000001", str(2**61)]
    assert found == (told if expected is None else expected)
