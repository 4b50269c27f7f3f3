"""Rows from CSV and TSV: how cells are told apart, and rows that will not do."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedsvc.bulk.rows import InputRow, Row
from embedsvc.errors import BulkError
from tests.support.bulk_inputs import bad, good


def test_a_row_of_csv_may_have_several_lines(read: Callable[..., list[InputRow]]) -> None:
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


def test_rows_of_csv_that_will_not_do_say_why(read: Callable[..., list[InputRow]]) -> None:
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
