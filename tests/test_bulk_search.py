"""Outputs that are damaged, or are none: a search finds it out, and says which."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.bulk.outputs import OUTPUTS
from embedsvc.bulk.outputs.files import beside
from embedsvc.bulk.search import search
from embedsvc.errors import BulkError
from tests.support.outputs import VECTORS, write


def look(path: Path) -> int:
    """Search an output; how many rows are found."""
    index = OUTPUTS[path.suffix].open(path)
    vector = np.ones(index.manifest.dimensions, np.float32)
    return len(search(index, vector, 5))


@pytest.fixture(params=OUTPUTS)
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An output of 40 rows."""
    path = tmp_path / f"out{request.param}"
    rows: list[dict[str, Any]] = [{"id": i, "text": f"text {i}"} for i in range(40)]
    write(path, rows, VECTORS[:40])
    assert look(path) == 5
    return path


def test_an_index_that_is_cut_anywhere_is_found_out(sound: Path) -> None:
    for file in sorted(sound.parent.iterdir()):
        whole = file.read_bytes()
        for cut in sorted({*range(0, len(whole), max(len(whole) // 25, 1)), len(whole) - 2}):
            file.write_bytes(whole[:cut])
            if file == beside(sound, "rows.jsonl"):  # of which only what is found is read
                with pytest.raises(BulkError, match="is damaged: "):
                    OUTPUTS[sound.suffix].open(sound).rows([39])
            else:
                with pytest.raises(BulkError, match=f"^{sound}.*: "):
                    look(sound)
        file.write_bytes(whole)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("ending", OUTPUTS)
def test_an_index_with_any_bytes_changed_is_read_or_refused(
    ending: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"changed{ending}"
    if not path.exists():
        write(path, [{"id": i, "text": f"text {i}"} for i in range(40)], VECTORS[:40])
    file = data.draw(st.sampled_from(sorted(path.parent.glob(f"{path.name}*"))))
    whole = file.read_bytes()
    changed = bytearray(whole)
    places = st.integers(0, len(whole) - 1)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)
    ):
        changed[place] = value
    file.write_bytes(changed)
    try:
        look(path)
    except BulkError:
        pass
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "changed",
    [
        {"dimensions": 11},
        {"dimensions": -1},
        {"dimensions": 10**12},
        {"rows": 41},
        {"rows": -1},
        {"dtype": "int8"},
        {"dtype": "object"},
        {"fingerprint": "?"},
        {"fingerprint": "AAAA"},
        {"fingerprint": base64.b64encode(b"\0" * 48).decode()},
        {"fingerprint": base64.b64encode(b"\xff" * 48).decode()},
        {"model": None},
    ],
)
@pytest.mark.parametrize("ending", [".jsonl", ".npy"])
def test_an_index_that_is_not_what_is_said_of_it_is_found_out(
    tmp_path: Path, ending: str, changed: dict[str, Any]
) -> None:
    path = tmp_path / f"out{ending}"
    write(path, [{"id": i, "text": f"text {i}"} for i in range(40)], VECTORS[:40])
    about = beside(path, "about.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | changed))
    if ending == ".jsonl" and changed == {"dtype": "int8"}:
        assert look(path) == 5  # numbers of any type are numbers there
        return
    with pytest.raises(BulkError, match=f"^{path}"):
        look(path)


def npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy(np.array([{"a": 1}], object)),
        npy(VECTORS[:40].astype(np.float64)),
        npy(np.asfortranarray(VECTORS[:40])),
        npy(VECTORS[:39]),
        npy(VECTORS[:40]).replace(b"(40, 12)", b"(10**9,)"),
        npy(VECTORS[:40]) + b"x",
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000,
        b"\x93NUMPY\x03\x00" + npy(VECTORS[:40])[8:],
        b"",
    ],
)
def test_an_npy_that_is_not_the_one_that_was_written_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "out.npy"
    write(path, [{"id": i, "text": "t"} for i in range(40)], VECTORS[:40])
    path.write_bytes(content)
    with pytest.raises(BulkError, match=r"out\.npy: is damaged: "):
        look(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_vectors_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    vectors = VECTORS[:40].copy()
    path = tmp_path / "out.npy"
    write(path, [{"id": i, "text": "t"} for i in range(40)], vectors)
    vectors[7] = value
    content = path.read_bytes()
    path.write_bytes(content[: -vectors.nbytes] + vectors.tobytes())
    with pytest.raises(BulkError, match="is damaged: vector 8 is not finite"):
        look(path)


def test_parquet_with_other_columns_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write(path, [{"id": i, "text": "t"} for i in range(2)], VECTORS[:2])
    metadata = pq.read_schema(path).metadata
    good = pq.read_table(path)
    vectors = good["embedding"].combine_chunks()
    for columns in (
        {"id": good["id"], "text": good["text"]},
        {"id": good["id"], "embedding": vectors},
        {"id": good["id"], "text": good["text"], "embedding": vectors.cast(pa.list_(pa.float32()))},
        {"id": good["id"], "text": good["text"], "embedding": pa.array([None, None], vectors.type)},
    ):
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
        with pytest.raises(BulkError, match=r"out\.parquet: is damaged: "):
            look(path)
