"""Rows from files of every format, and rows that will not do."""

import bz2
import gzip
import lzma
import os
import sys
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


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[InputRow]]:
    """Writes a file and reads it back as rows."""
    monkeypatch.chdir(tmp_path)

    def read(
        name: str,
        content: str | bytes | None,
        *columns: object,
        header: bool = True,
        **options: str,
    ) -> list[InputRow]:
        if content is not None:
            data = content.encode() if isinstance(content, str) else content
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        said = (options.get(option) for option in ("format", "delimiter", "quote"))
        sources = find_sources([name], *said, header=header)  # type: ignore[arg-type]
        return list(READERS[sources[0].format](sources[0], Columns(*columns)))  # type: ignore[arg-type]

    return read


def good(items: list[InputRow]) -> list[tuple[int, object, str]]:
    return [(row.line, row.id, row.text) for row in items if isinstance(row, Row)]


def bad(items: list[InputRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in items if isinstance(row, BadRow)]


JSONL = '{"text": "one", "n": 1}\n\n{"text": "two ü"}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_json_lines(read: Callable[..., list[InputRow]], name: str) -> None:
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


def test_csv(read: Callable[..., list[InputRow]]) -> None:
    content = 'id,text,more\n7,"one, ""quoted""\nover two lines",x\n\n8,two,y\n'
    items = read("a.csv", content, "text", "id", ("more",))
    assert good(items) == [(2, "7", 'one, "quoted"\nover two lines'), (5, "8", "two")]
    assert [row.kept for row in items if isinstance(row, Row)] == [{"more": "x"}, {"more": "y"}]
    assert good(read("a.tsv", "text\tn\none, two\t1\n")) == [(2, 2, "one, two")]
    assert good(read("b.csv", "text;n\none, two;1\n", delimiter=";")) == [(2, 2, "one, two")]


def test_a_line_of_tsv_is_a_row_whatever_quotes_it_has(read: Callable[..., list[InputRow]]) -> None:
    content = 'text\tn\n"She left\t1\nmiddle\t2\nthe end"\t3\na\\tb\\nc\\rd\\\\n\\x\t4\n'
    assert good(read("a.tsv", content)) == [
        (2, 2, '"She left'),
        (3, 3, "middle"),
        (4, 4, 'the end"'),
        (5, 5, "a\tb\nc\rd\\n\\x"),
    ]
    assert good(read("a.tab", "text\none\n")) == [(2, 2, "one")]
    assert good(read("a.tsv", 'text\n"a\tb"\n', quote='"')) == [(2, 2, "a\tb")]


def test_what_sets_the_cells_of_a_table_apart_is_found_or_said(
    read: Callable[..., list[InputRow]],
) -> None:
    for delimiter in ",;|\t":
        content = f'text{delimiter}n\n"one{delimiter} two"{delimiter}1\n'
        assert good(read("a.csv", content)) == [(2, 2, f"one{delimiter} two")]
    assert good(read("a.csv", "sep=;\r\ntext;n\r\none, two;1\r\n")) == [(3, 3, "one, two")]
    assert good(read("a.csv", "sep=#\ntext#n\none#1\n")) == [(3, 3, "one")]
    assert good(read("a.csv", "text#n\none#1\n", delimiter="#")) == [(2, 2, "one")]
    assert good(read("a.csv", "text\none; two\n")) == [(2, 2, "one; two")]
    assert good(read("a.csv", "text,n\n'a,b',1\n", quote="'")) == [(2, 2, "a,b")]
    assert good(read("a.csv", 'text,n\n"a,1\n', quote="")) == [(2, 2, '"a')]
    with pytest.raises(BulkError, match="no column `text`; there are: a;b"):
        read("a.csv", "a;b\n1;2\n")


def test_a_table_without_names_has_numbers_for_them(read: Callable[..., list[InputRow]]) -> None:
    content = "7;one\n8;two\n9\n"
    items = read("a.csv", content, "2", "1", header=False)
    assert good(items) == [(1, "7", "one"), (2, "8", "two")]
    assert bad(items) == [(3, "1 cells, and the first line has 2")]
    with pytest.raises(BulkError, match=r"a\.csv: no column `text`; there are: 1, 2"):
        read("a.csv", "7,one\n", header=False)
    assert good(read("a.tsv", "one\ttwo\n", "2", header=False)) == [(1, 1, "two")]


def test_two_columns_of_one_name_are_refused_where_they_are_wanted(
    read: Callable[..., list[InputRow]], tmp_path: Path
) -> None:
    for name, content in (("a.csv", "text,text,n\na,b,1\n"), ("a.tsv", "text\tn\ttext\na\t1\tb\n")):
        with pytest.raises(BulkError, match=f"{name}: two columns are called `text`"):
            read(name, content)
        assert good(read(name, content, "n")) == [(2, 2, "1")]
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(BulkError, match=r"a\.parquet: two columns are called `text`"):
        read("a.parquet", None)


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda content: pa.compress(content, "zstd", asbytes=True)),
    ],
)
def test_compressed_inputs_are_unpacked(
    read: Callable[..., list[InputRow]], tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    for name, content in ((f"a.csv{ending}", "text\none\n"), (f"A.JSONL{ending.upper()}", JSONL)):
        (tmp_path / name).write_bytes(pack(content.encode()))
        assert good(read(name, None))[0][2] == "one"
    (tmp_path / "plain").write_bytes(pack(b"one\ntwo"))  # whatever it is called
    assert good(read("plain", None, format="lines")) == [(1, 1, "one"), (2, 2, "two")]
    packed = pack(os.urandom(5000).hex().encode())
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 20] = b"\xff" * 20
    wrong = [packed[: len(packed) // 2], b"", b"text\n"]
    if ending != ".zst":  # pyarrow writes it without a checksum
        wrong.append(bytes(damaged))
    for content in wrong:
        (tmp_path / f"a.txt{ending}").write_bytes(content)
        with pytest.raises(BulkError, match=rf"a\.txt\{ending}: .+"):
            read(f"a.txt{ending}", None)
    bomb = pack(b"x" * (64 << 20))
    (tmp_path / f"a.txt{ending}").write_bytes(bomb)
    assert bad(read(f"a.txt{ending}", None)) == [(1, lines.TOO_LONG)]


def test_without_what_unpacks_zstd_the_error_says_how_to_get_it(
    read: Callable[..., list[InputRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt.zst").write_bytes(pa.compress(b"one", "zstd", asbytes=True))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    if sys.version_info < (3, 14):
        with pytest.raises(BulkError, match=r"zstd needs Python 3\.14 or pyarrow"):
            read("a.txt.zst", None)


@pytest.mark.parametrize("name", ["a.zip", "a.csv.ZIP", "a.tar.gz", "a.tgz", "a.jsonl.lz4", "a.7z"])
def test_archives_are_refused_by_name(read: Callable[..., list[InputRow]], name: str) -> None:
    for options in ({}, {"format": "lines"}):
        with pytest.raises(BulkError, match=f"{name}: unpack it first"):
            read(name, b"x", **options)


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


def test_bad_rows_of_csv(read: Callable[..., list[InputRow]]) -> None:
    content = b'id,text\n1\n2,\n3,\xff\n4,fine\n5,a,b\n6,fine\n7,"no end\n8,x\n'
    items = read("a.csv", content, "text", "id")
    assert good(items) == [(5, "4", "fine"), (7, "6", "fine"), (9, "8", "x")]
    assert bad(items) == [
        (2, "1 cells, and the first line has 2"),
        (3, "`text` is empty"),
        (4, "not UTF-8"),
        (6, "3 cells, and the first line has 2"),
        (8, "not CSV: a quote that is never closed"),
    ]


def test_lines(read: Callable[..., list[InputRow]]) -> None:
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
