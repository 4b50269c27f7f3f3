"""Rows from files of every format, and rows that will not do."""

import gzip
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.inputs import READERS, lines
from embedsvc.bulk.inputs.source import find_sources
from embedsvc.bulk.rows import BadRow, Columns, InputRow, Row, plain
from embedsvc.errors import BulkError
from embedsvc.system import text_files
from tests.support.bulk_inputs import bad, good

JSONL = '{"text": "one", "n": 1}\n\n{"text": "two ü"}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_an_object_of_json_lines_is_a_row(read: Callable[..., list[InputRow]], name: str) -> None:
    items = read(name, JSONL, "text", None, ("n",))
    assert good(items) == [(1, 1, "one"), (3, 3, "two ü")]
    assert [row.kept for row in items if isinstance(row, Row)] == [{"n": 1}, {"n": None}]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_text(
    read: Callable[..., list[InputRow]],
) -> None:
    assert good(read("a.jsonl", '\ufeff{"text": "one"}\r\n')) == [(1, 1, "one")]
    assert good(read("a.csv", "\ufefftext\r\none\r\n")) == [(2, 2, "one")]
    assert good(read("a.txt", "\ufeffone\r\ntwo")) == [(1, 1, "one"), (2, 2, "two")]


def test_inputs_are_read_however_an_editor_saved_them(read: Callable[..., list[InputRow]]) -> None:
    for name, content in (
        ("a.jsonl", '{"text": "ü"}\n{"text": "two"}\n'),
        ("a.csv", "text\nü\ntwo\n"),
        ("a.tsv", "text\nü\ntwo\n"),
        ("a.txt", "ü\ntwo\n"),
        ("a.txt.gz", "ü\ntwo\n"),
    ):
        for saved in (
            content.encode("utf-16"),
            b"\xfe\xff" + content.encode("utf-16-be"),
            content.replace("\n", "\r\n").encode("utf-8-sig"),
            content.replace("\n", "\r").encode(),
        ):
            assert [text for _, _, text in good(read(name, saved))] == ["ü", "two"], name
        with pytest.raises(BulkError, match=f"{name}: UTF-32: save it as UTF-8"):
            read(name, content.encode("utf-32"))
    assert bad(read("a.txt", "one\n".encode("utf-16-le")))[0] == (1, text_files.NUL)


def test_ids_come_from_their_column_and_large_ones_stay_whole(
    read: Callable[..., list[InputRow]],
) -> None:
    items = read("a.jsonl", '{"text": "one", "key": 123456789012345678901}\n', "text", "key")
    assert good(items) == [(1, 123456789012345678901, "one")]


def test_bad_json_lines_say_what_is_wrong(read: Callable[..., list[InputRow]]) -> None:
    lines = [
        b'{"text": "fine"}',
        b"not json",
        b'["a"]',
        b'{"body": "x"}',
        b'{"text": null}',
        b'{"text": ""}',
        b'{"text": 5}',
        b'{"text": ["a"]}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"text": "last"}',
    ]
    items = read("a.jsonl", b"\n".join(lines))
    assert [line for line, _, _ in good(items)] == [1, 12]
    reasons = dict(bad(items))
    assert list(reasons) == list(range(2, 12))
    assert reasons[2].startswith("not JSON: ")
    assert reasons[3] == "not a JSON object"
    assert reasons[4] == "no column `text`; there are: body"
    assert reasons[5] == "`text` is null"
    assert reasons[6] == "`text` is empty"
    assert reasons[7] == "`text` is a number, not text"
    assert reasons[8] == "`text` is a list, not text"
    assert reasons[9] == "not UTF-8"
    assert reasons[10].startswith("not JSON: ")
    assert reasons[11].startswith("not JSON: ")
    kept = {item.line: item.row for item in items if isinstance(item, BadRow)}
    assert kept[2] == b'"not json"'
    assert kept[4] == b'{"body":"x"}'


def test_a_column_that_no_row_has_is_an_error_that_names_those_there_are(
    read: Callable[..., list[InputRow]], tmp_path: Path
) -> None:
    for name, content in (
        ("a.jsonl", '{"title": "x", "body": "y"}\n' * 3),
        ("a.jsonl", "oops\n" + '{"title": "x", "body": "y"}\n' * 500),
        ("a.csv", "title,body\nx,y\n"),
    ):
        with pytest.raises(BulkError, match=r"a\.\w+.*: no column `text`; there are: title, body"):
            read(name, content)
    pq.write_table(pa.table({"title": ["x"], "body": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(BulkError, match="no column `key`; there are: title, body"):
        read("a.parquet", None, "body", "key")
    for name in ("a.txt", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(BulkError, match="has no columns, and so no `body`"):
            read(name, "x\n" if name == "a.txt" else None, "body")


def test_rows_without_the_column_are_bad_where_others_have_it(
    read: Callable[..., list[InputRow]],
) -> None:
    items = read("a.jsonl", '{"x": 1}\n' * 50 + '{"text": "one"}\n' + '{"x": 1}\n' * 200)
    assert good(items) == [(51, 51, "one")]
    assert [line for line, _ in bad(items)] == [*range(1, 51), *range(52, 252)]


def test_names_in_upper_case_do_not_matter(
    read: Callable[..., list[InputRow]], tmp_path: Path
) -> None:
    assert good(read("A.CSV", "text\none\n")) == [(2, 2, "one")]
    assert good(read("A.JSONL", JSONL))[0] == (1, 1, "one")
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "A.PARQUET")
    assert good(read("A.PARQUET", None)) == [(1, 1, "one")]


def test_a_column_to_keep_that_no_row_has_is_refused(
    read: Callable[..., list[InputRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = '{"text": "one", "n": 1}\n' * 5000
    with pytest.raises(BulkError, match=r"a\.jsonl: no column `stars`; there are: text, n"):
        read("a.jsonl", rows, "text", None, ("n", "stars"))
    later = '{"text": "one"}\n' * 9 + '{"text": "two", "stars": 3}\n'
    items = read("a.jsonl", later, "text", None, ("stars",))
    assert [row.kept["stars"] for row in items if isinstance(row, Row)] == [None] * 9 + [3]


def test_objects_in_objects_have_a_bound(read: Callable[..., list[InputRow]]) -> None:
    deep = '{"text": "one", "n": ' + "[" * 300 + "]" * 300 + "}\n"
    wide = '{"text": "two", "n": [' + "[], " * 300 + "[]]}\n"
    items = read("a.jsonl", deep + wide, "text", None, ("n",))
    assert bad(items) == [(1, "not JSON: lists and objects 200 deep or more")]
    assert good(items) == [(2, 2, "two")]


def test_a_folder_that_changes_or_may_not_be_read(
    read: Callable[..., list[InputRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("notes/a.txt", "notes/b/c.txt", "notes/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "notes" / os.fsdecode(b"caf\xe9.txt")).write_text("latin")
    (tmp_path / "notes" / "link").symlink_to("link")
    (tmp_path / "notes" / "round").symlink_to(tmp_path / "notes")
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items = read("notes", None)
    assert [row.id for row in items if isinstance(row, Row)] == [
        "notes/a.txt",
        "notes/caf\\xe9.txt",
        "notes/d.txt",
    ]
    assert [(row.file, row.reason) for row in items if isinstance(row, BadRow)] == [
        ("notes/b", "cannot be read: Permission denied"),
        ("notes/link", "cannot be read: Too many levels of symbolic links"),
    ]


def test_a_line_of_text_is_a_row(read: Callable[..., list[InputRow]]) -> None:
    items = read("a.txt", b"one\n\n  \n two \nthr\xffee\nfour")
    assert good(items) == [(1, 1, "one"), (4, 4, " two "), (6, 6, "four")]
    assert bad(items) == [(5, "not UTF-8")]


def test_a_line_that_is_too_long_is_bad_and_not_read_into_memory(
    read: Callable[..., list[InputRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr("embedsvc.bulk.inputs.delimited.MAX_LINE_BYTES", 20)
    long = "x" * 15
    for name, content in (
        ("a.txt", f"one\n{'x' * 50}\ntwo"),
        ("a.jsonl", f'{{"text": "one"}}\n{{"text": "{long}{long}"}}\n{{"text": "two"}}\n'),
        ("a.csv", f"text\none\n{long}{long}\ntwo\n"),
    ):
        items = read(name, content)
        assert [text for _, _, text in good(items)] == ["one", "two"], name
        assert [reason for _, reason in bad(items)] == [lines.TOO_LONG], name


def test_a_folder_is_a_row_for_each_file_in_order(
    read: Callable[..., list[InputRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.bulk.inputs.folder.MAX_LINE_BYTES", 20)
    for name, content in {
        "notes/b.md": b"bee",
        "notes/a/z.txt": b"zed",
        "notes/a/y.txt": b"why",
        "notes/c/image.png": b"\x89PNG\0",
        "notes/c/latin.txt": b"caf\xe9",
        "notes/c/nothing.txt": b" \n",
        "notes/c/vast.txt": b"x" * 21,
        "notes/.git/config": b"hidden",
        "notes/.hidden": b"hidden",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    items = read("notes", None)
    assert [(row.id, row.text) for row in items if isinstance(row, Row)] == [
        ("notes/a/y.txt", "why"),
        ("notes/a/z.txt", "zed"),
        ("notes/b.md", "bee"),
    ]
    assert [(row.file, row.reason) for row in items if isinstance(row, BadRow)] == [
        ("notes/c/image.png", "not text"),
        ("notes/c/latin.txt", "not UTF-8"),
        ("notes/c/nothing.txt", "is empty"),
        ("notes/c/vast.txt", lines.TOO_LONG),
    ]


def test_parquet_keeps_the_types_of_what_is_carried_along(
    read: Callable[..., list[InputRow]], tmp_path: Path
) -> None:
    table = pa.table(
        {
            "text": pa.array(["one", None, "", "four"]),
            "when": pa.array([1, 2, 3, None], pa.timestamp("ns", "UTC")),
            "price": pa.array([Decimal("1.50")] * 4),
            "kind": pa.array(["a", "a", "b", "b"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    items = read("a.parquet", None, "text", None, ("when", "price", "kind"))
    assert good(items) == [(1, 1, "one"), (4, 4, "four")]
    assert bad(items) == [(2, "`text` is null"), (3, "`text` is empty")]
    first = items[0]
    assert isinstance(first, Row)
    assert first.kept["when"].type == pa.timestamp("ns", "UTC")
    assert plain(first.kept["when"]) == "1970-01-01 00:00:00.000000001Z"
    assert plain(first.kept["price"]) == Decimal("1.50")
    assert plain(first.kept["kind"]) == "a"


def test_what_is_no_text_in_parquet(read: Callable[..., list[InputRow]], tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    assert bad(read("a.parquet", None)) == [
        (1, "`text` is a number, not text"),
        (2, "`text` is a number, not text"),
    ]


def test_inputs_that_cannot_be_read(
    read: Callable[..., list[InputRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BulkError, match=r"none\.jsonl: No such file"):
        read("none.jsonl", None)
    with pytest.raises(BulkError, match=r"a\.doc: say its --format: jsonl, csv"):
        read("a.doc", "x")
    with pytest.raises(BulkError, match=r"standard input: say its --format"):
        read("-", None)
    with pytest.raises(BulkError, match=r"a\.parquet: .*Parquet"):
        read("a.parquet", "not parquet at all")
    whole = gzip.compress(os.urandom(2000).hex().encode())
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BulkError, match=r"cut\.txt\.gz: "):
        read("cut.txt.gz", None)
    assert good(read("a.doc", "x", format="lines")) == [(1, 1, "x")]


def test_of_several_inputs_each_row_has_its_file_in_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\ntwo\n")
    sources = find_sources(["a.txt", "b.txt"], None, None)
    items = [item for source in sources for item in READERS[source.format](source, Columns())]
    assert [row.id for row in items if isinstance(row, Row)] == [
        "a.txt:1",
        "a.txt:2",
        "b.txt:1",
        "b.txt:2",
    ]
