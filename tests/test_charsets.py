"""Bodies in other charsets than UTF-8: read as they were meant, or refused by name."""

import codecs
import gzip

import pytest
from starlette.testclient import TestClient

from embedsvc.errors import BadRequest
from tests.support.bodies import TEXT, cut, read


@pytest.mark.parametrize(
    "charset",
    ["utf-8", "UTF-8", "utf8", "utf-16", "UTF-16LE", "utf-16be", "utf-32", "gb18030", "shift_jis"],
)
@pytest.mark.parametrize("form", ["application/json; charset={}", 'text/plain;x=y; Charset="{}"'])
def test_a_charset_is_obeyed(charset: str, form: str) -> None:
    text = "{'ß': '東京'}" if charset == "shift_jis" else TEXT
    text = text.replace("ß", "s") if charset == "shift_jis" else text
    encoded = text.encode(charset)
    for size in (len(encoded), 1, 3, 50):
        assert read(cut(encoded, size), content_type=form.format(charset)).decode() == text


@pytest.mark.parametrize("charset", ["iso-8859-1", "latin1", "windows-1252", "ISO-8859-15"])
def test_so_is_one_of_one_byte(client: TestClient, charset: str) -> None:
    text = '{"model": "org/tiny", "input": "Füße"}'
    headers = {"content-type": f"application/json; charset={charset}"}
    right = client.post("/v1/embeddings", content=text.encode()).json()
    answer = client.post("/v1/embeddings", content=text.encode("latin-1"), headers=headers)
    assert answer.json() == right


@pytest.mark.parametrize(
    "charset", ["klingon", "rot13", "base64", "zlib", "idna", "unicode_escape", "utf-7", "x" * 900]
)
def test_what_is_no_charset_is_a_415_that_names_it(client: TestClient, charset: str) -> None:
    headers = {"content-type": f"application/json; charset={charset}"}
    answer = client.post("/v1/embeddings", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert charset[:200] in answer.json()["error"]["message"]
    assert len(answer.json()["error"]["message"]) < 500


def test_a_body_that_is_not_in_its_charset_is_a_400() -> None:
    for charset, sent in (("utf-16le", b"{\0}"), ("utf-32", b"\xff" * 8), ("gbk", b"\xff\xff")):
        with pytest.raises(BadRequest, match=f"not {charset}"):
            read(sent, content_type=f"application/json; charset={charset}")


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("charset", ["", "; charset=utf-8"])
def test_a_byte_order_mark_is_understood(mark: str, charset: str) -> None:
    encoded = TEXT.encode(mark)
    for size in (len(encoded), 1, 2, 3, 5):
        assert read(cut(encoded, size), content_type=f"application/json{charset}").decode() == TEXT
    assert read(gzip.compress(encoded), "gzip").decode() == TEXT


def test_a_mark_goes_with_the_charset_too() -> None:
    for charset, mark in (("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)):
        sent = mark + TEXT.encode(charset)
        assert read(sent, content_type=f"application/json; charset={charset}").decode() == TEXT
