"""Outputs, and what is found in them again."""

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.dtypes import STORED, Stored, load, store
from embedsvc.bulk.outputs import OUTPUTS, parquet
from embedsvc.bulk.search import search
from embedsvc.errors import BulkError
from tests.support.outputs import ROWS, VECTORS, write

ENDINGS = list(OUTPUTS)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", STORED)
def test_what_was_written_is_read_again(tmp_path: Path, ending: str, dtype: Stored) -> None:
    path = tmp_path / f"out{ending}"
    about = write(path, dtype=dtype)
    index = OUTPUTS[ending].open(path)
    assert index.manifest == about
    stored = np.concatenate(list(index.blocks()))
    np.testing.assert_array_equal(stored, store(VECTORS, dtype))
    found = [json.loads(json.dumps(row, default=lambda v: v.as_py())) for row in index.rows([7, 3])]
    assert found == [ROWS[7], ROWS[3]]


@pytest.mark.parametrize("dtype", STORED)
def test_every_type_keeps_the_direction_of_a_vector(dtype: Stored) -> None:
    loaded = load(store(VECTORS, dtype), dtype, 12)
    assert loaded.shape == (1000, 12)
    norms = np.linalg.norm(loaded, axis=1) * np.linalg.norm(VECTORS, axis=1)
    cosines = (loaded * VECTORS).sum(axis=1) / norms
    least = {"float32": 1 - 1e-6, "float16": 1 - 1e-5, "int8": 0.999, "uint8": 0.999}
    assert cosines.min() > least.get(dtype, 0.4)
    assert cosines.mean() > least.get(dtype, 0.75)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("k", [1, 10, 5000])
def test_the_best_rows_are_those_of_the_whole_matrix(
    tmp_path: Path, ending: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("jsonl", "npy", "parquet"):
        monkeypatch.setattr(f"embedsvc.bulk.outputs.{module}.ROWS", 37)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 10_000)
    vectors = VECTORS.copy()
    vectors[500] = vectors[20] * 2  # as good as another: the first comes first
    path = tmp_path / f"out{ending}"
    write(path, vectors=vectors)
    query = vectors[20] + 0.01
    hits = search(OUTPUTS[ending].open(path), query, k)
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosines.round(6), kind="stable")[:k]
    assert len(hits) == min(k, 1000)
    assert [int(str(hit.row["id"])) for hit in hits[:2]] == [20, 500][: min(k, 2)]
    np.testing.assert_allclose([hit.score for hit in hits], cosines[order], atol=2e-6)
    assert hits[0].row.keys() == {"id", "text", "note"}


def test_parquet_is_for_others_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 20_000)
    write(tmp_path / "out.parquet")
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups > 2
    table = file.read()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 12)
    assert table["id"].to_pylist() == list(range(1000))
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), VECTORS)
    told = json.loads(file.schema_arrow.metadata[b"embedsvc"])
    assert (told["model"], told["dimensions"], told["rows"]) == ("m", 12, 1000)
    assert len(base64.b64decode(told["fingerprint"])) == 4 * 12


def test_parquet_finds_types_that_fit_all_rows(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "whole": [1, 2, None, 4],
        "some_fractions": [1, 2.5, 3, None],
        "mixed": [1, "two", True, None],
        "mixed_later": [1, 2, "three", {"a": 4}],
        "large": [1, 2**70, 3, 4],
        "nested": [{"a": [1]}, None, [2], {"b": "ü"}],
        "nothing": [None] * 4,
        "flag": [True, None, False, True],
    }
    rows = [
        {"id": i, "text": "t"} | {name: values[i] for name, values in columns.items()}
        for i in range(4)
    ]
    for block in (1, 2, 4):  # however they come in pieces
        write(tmp_path / "out.parquet", rows, VECTORS[:4], block=block)
        read = pq.read_table(tmp_path / "out.parquet").to_pydict()
        assert read["whole"] == columns["whole"]
        assert read["some_fractions"] == columns["some_fractions"]
        assert read["mixed"] == ["1", "two", "true", None]
        assert read["mixed_later"] == ["1", "2", "three", '{"a":4}']
        assert read["large"] == ["1", str(2**70), "3", "4"]
        assert read["nested"] == ['{"a":[1]}', None, "[2]", '{"b":"ü"}']
        assert read["nothing"] == columns["nothing"]
        assert read["flag"] == columns["flag"]


@pytest.fixture
def typed() -> dict[str, Any]:
    return {
        "id": pa.scalar(b"\x00\xff"),
        "text": "t",
        "when": pa.scalar(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), pa.timestamp("us", "UTC")),
        "nanos": pa.scalar(1, pa.timestamp("ns")),
        "price": pa.scalar(Decimal("1.50")),
        "tags": pa.scalar(["a", "b"]),
        "none": pa.scalar(None, pa.int32()),
    }


def test_types_of_parquet_stay_in_parquet(tmp_path: Path, typed: dict[str, Any]) -> None:
    write(tmp_path / "out.parquet", [typed, typed], VECTORS[:2], block=1)
    schema = pq.read_schema(tmp_path / "out.parquet")
    for name, value in typed.items():
        assert name == "text" or schema.field(name).type == value.type


def test_types_of_parquet_become_text_in_json(tmp_path: Path, typed: dict[str, Any]) -> None:
    write(tmp_path / "out.jsonl", [typed], VECTORS[:1])
    row = json.loads((tmp_path / "out.jsonl").read_text())
    del row["embedding"]
    assert row == {
        "id": "AP8=",
        "text": "t",
        "when": "2026-01-02T03:04:05Z",
        "nanos": "1970-01-01 00:00:00.000000001",
        "price": "1.50",
        "tags": ["a", "b"],
        "none": None,
    }


def test_what_is_no_output_is_no_index(tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("{}")
    np.save(tmp_path / "a.npy", VECTORS)
    with pytest.raises(BulkError, match=r"a\.parquet: is no output of embedsvc embed"):
        OUTPUTS[".parquet"].open(tmp_path / "a.parquet")
    for ending in (".jsonl", ".npy"):
        with pytest.raises(BulkError, match=r"about\.json: No such file"):
            OUTPUTS[ending].open(tmp_path / f"a{ending}")


def test_without_pyarrow_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BulkError, match=r"pip install 'embedsvc\[parquet\]'"):
        write(tmp_path / "out.parquet")
