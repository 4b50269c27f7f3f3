"""A run of `embedsvc embed` on an embedder of the test's own: order, bad rows, what is refused."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk import outputs
from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.bulk.outputs.files import beside
from embedsvc.bulk.rows import Columns
from embedsvc.errors import BulkError, EmbeddingFailed
from embedsvc.serving.embedded import Embedded
from embedsvc.texts.requests import Chunking
from tests.support.bulk import FakeEmbedder, go, read_jsonl, rows_of
from tests.support.fake_server import vector_of

KEYED = Columns("text", "key")


def test_rows_come_out_in_order_with_their_vectors(source: Path, tmp_path: Path) -> None:
    fake = FakeEmbedder()
    summary = go(fake, tmp_path / "out.jsonl", source, columns=Columns("text", "key"))
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [f"k{i}" for i in range(500)]
    for row in rows:
        np.testing.assert_array_equal(np.float32(row["embedding"]), vector_of(row["text"]))
    assert fake.texts == [f"text {i}" for i in range(500)]
    assert summary.totals.tokens == 1500
    assert summary.manifest.rows == 500
    assert not beside(tmp_path / "out.jsonl", "partial").exists()
    assert not beside(tmp_path / "out.jsonl", "rejects.jsonl").exists()


def test_blocks_grow_with_the_speed_of_the_embedder(source: Path, tmp_path: Path) -> None:
    source.write_text(rows_of(20_000))
    fake = FakeEmbedder()
    go(fake, tmp_path / "out.npy", source)
    assert fake.sizes[0] < 40
    assert max(fake.sizes) > 500


def test_bad_rows_are_set_aside_and_the_others_are_not(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    wrong = {3: "too long", 40: "odd one", 41: "long too", 77: "a nan", 99: "long"}
    texts = [wrong.get(i, f"text {i}") for i in range(100)]
    lines = [json.dumps({"text": text}) for text in texts]
    lines.insert(50, "not json")
    source.write_text("\n".join(lines))
    fake = FakeEmbedder()
    summary = go(fake, tmp_path / "out.jsonl", source)
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["text"] for row in rows] == [t for i, t in enumerate(texts) if i not in wrong]
    assert sorted(fake.texts) == sorted(row["text"] for row in rows)  # each once
    assert summary.after.rejected == 6
    rejects = read_jsonl(tmp_path / "out.jsonl.rejects.jsonl")
    assert [(bad["line"], bad["reason"][:8]) for bad in rejects] == [
        (4, "Invalid "),
        (41, "somethin"),
        (42, "Invalid "),
        (51, "not JSON"),
        (79, "it faile"),
        (101, "Invalid "),
    ]
    assert rejects[1]["row"] == {"id": 41, "text": "odd one"}
    assert {bad["file"] for bad in rejects} == {str(source)}


def test_a_text_on_which_the_embedder_failed_once_is_not_set_aside(tmp_path: Path) -> None:
    class Recovers(FakeEmbedder):
        failures = 0

        async def embed(self, texts: Sequence[str], how: EmbedOptions) -> Embedded:
            if "text 4" in texts and self.failures:
                self.failures -= 1
                raise EmbeddingFailed("a replica was lost")
            return await super().embed(texts, how)

    source = tmp_path / "in.jsonl"
    source.write_text(rows_of(9))
    embedder = Recovers()
    for failures in range(1, 5):  # with 8 others, 4, 1, and once alone
        embedder.failures = failures
        output = tmp_path / f"{failures}.npy"
        assert go(embedder, output, source).after.rejected == 0
        assert len(np.load(output)) == 9


def test_an_embedder_that_fails_on_everything_is_no_fault_of_the_rows(
    source: Path, tmp_path: Path
) -> None:
    class Breaking(FakeEmbedder):
        async def embed(self, texts: Sequence[str], how: EmbedOptions) -> Embedded:
            self.broken = len(self.texts) > 100
            return await super().embed(texts, how)

    source.write_text(rows_of(5000))
    with pytest.raises(BulkError, match="it failed"):
        go(Breaking(), tmp_path / "out.jsonl", source)
    go(FakeEmbedder(), tmp_path / "out.jsonl", source)
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 5000
    assert not (tmp_path / "out.jsonl.rejects.jsonl").exists()


def test_strict_ends_at_the_first_bad_row_and_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = rows_of(300).splitlines()
    source.write_text("\n".join([*lines[:200], "oops", *lines[201:]]))
    first = FakeEmbedder()
    with pytest.raises(BulkError, match=r"in\.jsonl:201: not JSON"):
        go(first, tmp_path / "out.jsonl", source, strict=True)
    source.write_text("\n".join(lines))
    second = FakeEmbedder()
    summary = go(second, tmp_path / "out.jsonl", source, strict=True)
    assert 0 < summary.before.items <= 200
    assert second.texts == [f"text {i}" for i in range(summary.before.items, 300)]
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] == [
        f"text {i}" for i in range(300)
    ]


def test_an_output_that_is_there_is_not_replaced_unasked(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(BulkError, match=r"out\.jsonl is there already: say --overwrite"):
        go(FakeEmbedder(), output, source)
    assert output.read_text() == "precious"
    go(FakeEmbedder(), output, source, overwrite=True)
    assert len(read_jsonl(output)) == 500
    with pytest.raises(BulkError, match=r"out\.csv: an output's name ends in \.parquet, \.jsonl"):
        go(FakeEmbedder(), tmp_path / "out.csv", source)


def test_late_chunks_have_a_row_each(source: Path, tmp_path: Path) -> None:
    source.write_text(rows_of(3))
    summary = go(
        FakeEmbedder(), tmp_path / "out.jsonl", source, options=EmbedOptions(chunking=Chunking(4))
    )
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [(r["id"], r["chunk"], r["start"], r["end"], r["text"]) for r in rows[:3]] == [
        (1, 0, 0, 2, "te"),
        (1, 1, 2, 6, "xt 0"),
        (2, 0, 0, 2, "te"),
    ]
    assert (summary.after.items, summary.manifest.rows) == (3, 6)


def test_an_input_that_breaks_off_keeps_the_rows_before(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    whole = gzip.compress(rows_of(2000).encode())
    source.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BulkError, match=r"in\.jsonl\.gz: "):
        go(FakeEmbedder(), tmp_path / "out.jsonl", source)
    source.write_bytes(whole)
    fake = FakeEmbedder()
    summary = go(fake, tmp_path / "out.jsonl", source)
    assert summary.before.items > 500
    assert len(fake.texts) == 2000 - summary.before.items
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 2000


def test_an_input_without_rows_gives_an_output_without_any(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n\n")
    for name in outputs.OUTPUTS:
        summary = go(FakeEmbedder(), tmp_path / f"out{name}", tmp_path / "in.txt")
        assert summary.manifest.rows == 0
        assert (tmp_path / f"out{name}").exists()
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    assert np.load(tmp_path / "out.npy").shape == (0, 8)
