"""Runs of `embedsvc embed` that go on where another one ended: what is done is not done again."""

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.job import Job, Run
from embedsvc.bulk.journal import FRAME, MAGIC
from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.bulk.progress import Progress
from embedsvc.bulk.rows import Columns
from embedsvc.errors import BulkError
from embedsvc.serving.embedded import Embedded
from embedsvc.texts.requests import Chunking
from tests.support.bulk import FakeEmbedder, go, read_jsonl, rows_of
from tests.support.fake_server import vector_of

KEYED = Columns("text", "key")


@pytest.mark.parametrize("output", ["out.parquet", "out.jsonl", "out.npy"])
def test_a_run_that_broke_goes_on_and_gives_the_same_output(
    source: Path, tmp_path: Path, output: str
) -> None:
    source.write_text(rows_of(300) + "oops\n" + rows_of(300))
    go(FakeEmbedder(), tmp_path / f"whole-{output}", source, columns=KEYED)
    for breaks_after in (100, 150, 250):
        with pytest.raises(BulkError, match="out of order"):
            go(FakeEmbedder(breaks_after=breaks_after), tmp_path / output, source, columns=KEYED)
    last = FakeEmbedder()
    summary = go(last, tmp_path / output, source, columns=KEYED)
    assert summary.before.rows > 0
    assert len(last.texts) == 600 - summary.before.rows  # what was finished is not asked for again
    for name in (output, f"{output}.rejects.jsonl", f"{output}.rows.jsonl"):
        whole = tmp_path / f"whole-{name}"
        assert whole.exists() == (tmp_path / name).exists()
        if whole.exists() and not name.endswith("parquet"):
            assert whole.read_bytes() == (tmp_path / name).read_bytes()
    if output == "out.parquet":
        assert pq.read_table(tmp_path / output).equals(
            pq.read_table(tmp_path / "whole-out.parquet")
        )


def test_what_is_told_on_resume_counts_all_rows(source: Path, tmp_path: Path) -> None:
    class Told(Progress):
        rows: list[tuple[int, int]] = []  # noqa: RUF012 - of this test

        def update(
            self, rows: int, bad: int, share: float | None, seconds: float, before: int = 0
        ) -> None:
            self.rows.append((rows, before))

    output = tmp_path / "out.jsonl"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=200), output, source)
    told = Told(io.StringIO())
    with Run(Job(inputs=(str(source),), output=output), told) as run:
        summary = asyncio.run(run.embed(FakeEmbedder()))
    assert {before for _, before in told.rows} == {summary.before.items}
    assert told.rows[-1][0] == 500


def test_a_run_that_ended_while_the_output_was_put_together_embeds_nothing_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(BulkError, match=r"out\.\w+.*: No space left on device"):
            go(FakeEmbedder(), tmp_path / "out.jsonl", source)
    assert not list(tmp_path.glob(".*unfinished"))
    again = FakeEmbedder()
    summary = go(again, tmp_path / "out.jsonl", source)
    assert again.texts == []
    assert summary.before.items == summary.after.items == 500
    assert len(read_jsonl(tmp_path / "out.jsonl")) == 500


def test_a_changed_input_is_refused_where_it_was_read_already(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=200), output, source)
    original = source.read_text()
    for changed in (
        original.replace("text 3", "text three", 1),
        original.replace('"text 1"', "null", 1),
        "\n" + original,
        "".join(original.splitlines(keepends=True)[:20]),
    ):
        source.write_text(changed)
        fake = FakeEmbedder()
        with pytest.raises(BulkError, match="the input has changed"):
            go(fake, output, source)
        assert fake.texts == []
    source.write_text(original)
    go(FakeEmbedder(), output, source)
    assert len(read_jsonl(output)) == 500


def test_rows_that_were_not_read_yet_may_change(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=200), tmp_path / "out.jsonl", source)
    source.write_text(rows_of(400) + '{"text": "new"}\n')
    go(FakeEmbedder(), tmp_path / "out.jsonl", source)
    texts = [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert texts == [*(f"text {i}" for i in range(400)), "new"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"columns": Columns("key")}, "--column was text, is key"),
        ({"columns": Columns("text", "key")}, "--id-column was not given, is key"),
        ({"columns": Columns("text", None, ("key",))}, "--keep was not given, is key"),
        (
            {"options": EmbedOptions(prompt="p: ")},
            "gives other vectors now, --prompt was not given, is p: ",
        ),
        ({"options": EmbedOptions(truncate="end")}, "--truncate was not given, is end"),
        ({"options": EmbedOptions(chunking=Chunking(8))}, "--chunking was not given, is "),
        ({"dtype": "float16"}, "--dtype was float32, is float16"),
        ({"format": "jsonl"}, "--format was not given, is jsonl"),
    ],
)
def test_other_options_are_refused(
    source: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=200), output, source)
    with pytest.raises(BulkError) as caught:
        go(FakeEmbedder(), output, source, **changed)
    assert said in str(caught.value)
    assert "Go on as it was begun, or delete it" in str(caught.value)
    go(FakeEmbedder(), output, source)


def test_another_model_is_refused_also_under_the_same_name(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=200), output, source)
    with pytest.raises(BulkError, match="--model was fake, is other"):
        go(FakeEmbedder("other"), output, source)
    with pytest.raises(BulkError, match="`fake` gives other vectors now"):
        go(FakeEmbedder(seed="x"), output, source)


def test_another_fingerprint_of_a_server_is_refused(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=200, fingerprint="abc"), output, source)
    with pytest.raises(BulkError, match="the server's fingerprint was abc, is def"):
        go(FakeEmbedder(fingerprint="def"), output, source)
    assert go(FakeEmbedder(fingerprint="abc"), output, source).before.items > 0


def test_a_model_that_became_another_without_a_word_leaves_no_row(
    source: Path, tmp_path: Path
) -> None:
    class Changing(FakeEmbedder):
        async def embed(self, texts: Sequence[str], how: EmbedOptions) -> Embedded:
            if len(self.texts) > 300:
                self.seed = "x"
            return await super().embed(texts, how)

    output = tmp_path / "out.jsonl"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=100), output, source)
    with pytest.raises(BulkError, match="`fake` gives other vectors than when the run began"):
        go(Changing(), output, source)
    assert not output.exists()
    summary = go(FakeEmbedder(), output, source)
    assert 0 < summary.before.items <= 100
    for row in read_jsonl(output):
        np.testing.assert_array_equal(np.float32(row["embedding"]), vector_of(row["text"]))


def test_what_a_killed_process_left_of_a_record_is_cut_off(source: Path, tmp_path: Path) -> None:
    """The partial output cut at every kind of place still goes on to the same output."""
    go(FakeEmbedder(), tmp_path / "whole.jsonl", source)
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=400), output, source)
    left = partial.read_bytes()
    job = len(MAGIC) + FRAME.size + FRAME.unpack_from(left, len(MAGIC))[0]
    size = FRAME.unpack_from(left, job)[0]
    cuts = [0, 5, len(MAGIC), len(MAGIC) + 4, job - 1, job, job + 3, job + FRAME.size + 9]
    for cut in [*cuts, job + FRAME.size + size, len(left) - 1, len(left)]:
        partial.write_bytes(left[:cut])
        summary = go(FakeEmbedder(), output, source, overwrite=True)
        assert (summary.before.items > 0) == (cut >= job + FRAME.size + size)
        assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    flipped = bytearray(left)
    flipped[-5] ^= 1
    partial.write_bytes(flipped)
    go(FakeEmbedder(), output, source)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_no_partial_output_is_left_alone(source: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.jsonl.partial"
    for content in (b"somebody's notes, longer than the magic", MAGIC + FRAME.pack(3, 0) + b"abcd"):
        partial.write_bytes(content)
        with pytest.raises(BulkError, match=r"out\.jsonl\.partial is damaged, or not of this"):
            go(FakeEmbedder(), tmp_path / "out.jsonl", source)
        assert partial.read_bytes() == content


def test_two_runs_do_not_write_one_output(source: Path, tmp_path: Path) -> None:
    plan = Job(inputs=(str(source),), output=tmp_path / "out.jsonl")
    with (
        Run(plan, Progress(io.StringIO())),
        pytest.raises(BulkError, match="another process is writing it"),
    ):
        Run(plan, Progress(io.StringIO()))
