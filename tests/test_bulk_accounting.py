"""Nothing that is read is lost: whatever bytes an input has, each line is in a row or set aside."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedsvc.bulk.inputs import table
from embedsvc.bulk.inputs.packed import PACKED
from embedsvc.bulk.inputs.table import Lines, Record, csv_rows, tsv_rows
from embedsvc.bulk.job import Job, Run
from embedsvc.bulk.progress import Progress
from embedsvc.bulk.rows import Columns
from embedsvc.errors import BulkError
from tests.support.bulk import FakeEmbedder

PIECES = [
    *(b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"long", b"nan", b"\xff", b"\0", b" "),
    *("ü\u2028".encode(), b"\xef\xbb\xbf", b"{", b"}", b'{"text":"x"}', b"[", b"null"),
]
SYNTAX = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
BYTES = st.one_of(SYNTAX, st.binary(max_size=100))
FEW = settings(max_examples=60, deadline=None)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, on lines that end in LF and nothing else."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def embed(name: str, content: bytes, column: str = "text") -> tuple[list[int], list[int]] | None:
    """The lines of the rows and of what was set aside; none if the input was refused."""
    with TemporaryDirectory() as folder:
        source, output = Path(folder) / name, Path(folder) / "out.jsonl"
        source.write_bytes(content)
        plan = Job(inputs=(str(source),), output=output, columns=Columns(column))
        try:
            with Run(plan, Progress(io.StringIO())) as run:
                summary = asyncio.run(run.embed(FakeEmbedder()))
                run.write_output(summary.manifest)
        except BulkError:
            assert {file for file in Path(folder).iterdir() if "partial" not in file.name} == {
                source
            }
            return None
        rows = read_jsonl(output)
        rejects = output.with_name("out.jsonl.rejects.jsonl")
        bad = read_jsonl(rejects) if rejects.exists() else []
        assert summary.after.items == len(rows) + len(bad)
        assert (summary.after.rows, summary.after.rejected) == (len(rows), len(bad))
        assert [one["id"] for one in bad] == [one["line"] for one in bad]
        return [row["id"] for row in rows], [one["line"] for one in bad]


def lines_of(content: bytes) -> dict[int, bytes]:
    """Lines that are not blank, by their numbers."""
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    return {number: line for number, line in enumerate(lines, 1) if line.strip()}


@FEW
@given(BYTES)
@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.rejects.jsonl"])
def test_every_line_is_a_row_or_set_aside(name: str, content: bytes) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff", *PACKED.values())):
        return  # UTF-16, or packed
    found = embed(name, content)
    if found is None:  # no object has the column
        assert name != "in.txt"
        return
    expected = lines_of(content)
    if name == "in.txt":  # whose white space is Unicode's
        expected = {
            n: line for n, line in expected.items() if line.decode(errors="replace").strip()
        }
    assert sorted(found[0] + found[1]) == list(expected)


@FEW
@given(BYTES)
def test_every_line_of_tsv_is_a_row_or_set_aside(content: bytes) -> None:
    content = b"text\n" + content
    found = embed("in.tsv", content)
    assert found is not None
    assert set(lines_of(content)) - {1} <= set(found[0] + found[1])


def spans(records: list[Record], last: int) -> Iterator[tuple[Record, range]]:
    """Records, and the lines that are theirs."""
    begins = [*(record.line for record in records), last + 1]
    for record, end in zip(records, begins[1:], strict=True):
        yield record, range(record.line, end)


def parse(content: bytes, quote: str = '"') -> list[Record]:
    lines = list(enumerate(content.splitlines(keepends=True), 1))
    return list(csv_rows(Lines(lines), ",", quote, most=1 << 20, too_long="long"))


@given(BYTES)
@example(b'a,"b\n"c"\nd\n')
@example(b'a","\n' * 5)
def test_rows_of_csv_have_all_lines_between_them_and_agree_with_pythons(content: bytes) -> None:
    lines = content.splitlines(keepends=True)
    records = parse(content)
    assert [record.line for record in records][:1] == [1][: len(lines)]
    assert [record.line for record in records] == sorted({record.line for record in records})
    for record, span in spans(records, len(lines)):
        text = b"".join(lines[number - 1] for number in span)
        if record.text is not None:
            assert record.wrong
            assert len(span) == 1  # a quote gone wrong costs its own line and no other
        elif not record.wrong and record.cells:
            source = io.StringIO(text.decode(), newline="")
            assert [record.cells] == list(csv.reader(source, strict=True))


@FEW
@given(BYTES)
def test_every_line_of_csv_is_in_a_row_or_set_aside(content: bytes) -> None:
    content = b"text\n" + content
    found = embed("in.csv", content)
    assert found is not None
    records = {record.line for record in parse(content) if record.cells or record.wrong}
    assert sorted(found[0] + found[1]) == sorted(records - {1})


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    rows = [f"{i},text {i}\n" for i in range(1, 1001)]
    rows[2] = '3,"text 3\n'
    content = "id,text\n" + "".join(rows)
    found = embed("in.csv", content.encode())
    assert found == ([line for line in range(2, 1002) if line != 4], [4])
    rows[500] = '501,"over\ntwo lines"\n'
    found = embed("in.csv", ("id,text\n" + "".join(rows)).encode())
    assert found is not None
    assert found[1] == [4]
    assert len(found[0]) == 999


def test_a_quote_that_is_closed_too_late_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_LINES", 5)
    content = b'"one\ntwo\nthree"\n"four\n' + b"x\n" * 9 + b'five"\n"six\nseven"\n'
    records = parse(content)
    assert [(record.line, record.cells) for record in records if not record.wrong] == [
        (1, ["one\ntwo\nthree"]),
        *((line, ["x"]) for line in range(5, 14)),
        (14, ['five"']),
        (15, ["six\nseven"]),
    ]
    assert [(record.line, record.text) for record in records if record.wrong] == [(4, '"four')]


def test_quotes_that_open_on_every_line_are_looked_at_once_each() -> None:
    """Each of these lines opens a quote whether it began in one or not."""
    taken = 0

    def lines() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        for number in range(1, 2001):
            taken += 1
            yield number, b'a","\n'

    class Counting(Lines):
        again = 0

        def put_back(self, lines: object) -> None:
            lines = list(lines)  # type: ignore[call-overload]
            self.again += len(lines)
            super().put_back(lines)

    counting = Counting(lines())
    records = list(csv_rows(counting, ",", '"', most=1 << 30, too_long="long"))
    assert len(records) == taken == 2000
    assert counting.again < 2 * taken


@given(st.lists(st.lists(st.text(max_size=9), min_size=1, max_size=3), max_size=5))
def test_escapes_of_tsv_give_back_what_was_escaped(rows: list[list[str]]) -> None:
    escaped = [
        "\t".join(
            cell.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")
            for cell in row
        )
        for row in rows
    ]
    lines = [(n, (line + "\n").encode()) for n, line in enumerate(escaped, 1)]
    records = list(tsv_rows(Lines(lines), "\t", too_long="long"))
    expected = [[] if row == [""] else row for row in rows]
    assert [record.cells for record in records if not record.wrong] == [
        row for row in expected if not any("\0" in cell for cell in row)
    ]
    assert len(records) == len(rows)


@FEW
@given(st.dictionaries(st.integers(0, 9), st.one_of(BYTES, st.none()), max_size=5))
def test_every_file_of_a_folder_is_a_row_or_set_aside(files: dict[int, bytes | None]) -> None:
    with TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.mkdir()
        for number, content in files.items():
            if content is None:
                (notes / f"{number}").symlink_to(notes / f"{number}")  # a link to itself
            else:
                (notes / f"{number}").write_bytes(content)
        plan = Job(inputs=(str(notes),), output=notes / "out.jsonl")
        with Run(plan, Progress(io.StringIO())) as run:
            summary = asyncio.run(run.embed(FakeEmbedder()))
            run.write_output(summary.manifest)
        rejects = notes / "out.jsonl.rejects.jsonl"
        bad = read_jsonl(rejects) if rejects.exists() else []
        found = [row["id"] for row in read_jsonl(notes / "out.jsonl")] + [b["file"] for b in bad]
        assert sorted(found) == sorted(str(notes / str(number)) for number in files)
        assert summary.after.items == len(files)


def parquet_file() -> bytes:
    sink = io.BytesIO()
    texts = ["one", None, "", "long", "five"] * 20
    table = pa.table({"text": texts, "n": list(range(100))})
    pq.write_table(table, sink, row_group_size=30)
    return sink.getvalue()


WHOLE = parquet_file()


@FEW
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4))
@example([])
@example([(1878, 0)])  # the rows of the last group, which Arrow leaves out
def test_every_row_of_a_damaged_parquet_is_counted_or_it_is_refused(
    changes: list[tuple[int, int]],
) -> None:
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    found = embed("in.parquet", bytes(content))
    if found is not None:
        count = pq.ParquetFile(io.BytesIO(content)).metadata.num_rows
        assert len(found[0]) + len(found[1]) == count
    else:
        assert changes


@FEW
@given(BYTES, st.sampled_from([".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".CSV.GZ"]))
def test_whatever_an_input_holds_it_ends_in_one_line(content: bytes, ending: str) -> None:
    embed(f"in{ending}", content)


def test_what_was_set_aside_can_be_mended_and_embedded(tmp_path: Path) -> None:
    source, first = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"body": "fine", "key": "a", "n": 1}\n{"body": "too long", "key": "b"}\n')
    with source.open("a") as file:
        file.write('{"key": "c"}\noops\n{"body": "odd", "key": "e", "n": 5}\n')
    columns = Columns("body", "key", ("n",))

    def go(source: Path, output: Path) -> list[dict[str, Any]]:
        plan = Job(inputs=(str(source),), output=output, columns=columns)
        with Run(plan, Progress(io.StringIO())) as run:
            summary = asyncio.run(run.embed(FakeEmbedder()))
            run.write_output(summary.manifest)
        rejects = output.with_name(f"{output.name}.rejects.jsonl")
        return read_jsonl(rejects) if rejects.exists() else []

    bad = go(source, first)
    assert [one["line"] for one in bad] == [2, 3, 4, 5]
    rejects = first.with_name("out.jsonl.rejects.jsonl")
    # As they are, they are set aside again, under the names that they have.
    again = go(rejects, tmp_path / "again.jsonl")
    for was, now in zip(bad, again, strict=True):
        assert (was["file"], was["line"], was["id"]) == (now["file"], now["line"], now["id"])
    assert go(tmp_path / "again.jsonl.rejects.jsonl", tmp_path / "third.jsonl") == again
    bad[0]["row"]["text"] = "short"
    bad[1]["row"]["body"] = "found"
    bad[2]["row"] = '{"body": "a line", "key": "d"}'
    bad[3]["row"] = {"body": "even", "key": "e", "n": 5}
    rejects.write_text("".join(json.dumps(one) + "\n" for one in bad))
    assert go(rejects, tmp_path / "mended.jsonl") == []
    rows = read_jsonl(tmp_path / "mended.jsonl")
    assert [(row["id"], row["text"], row["n"]) for row in rows] == [
        ("b", "short", None),
        ("c", "found", None),
        ("d", "a line", None),
        ("e", "even", 5),
    ]
