"""OpenAI's token ids: back to the text they were made of."""

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.texts.cl100k import SPECIAL, TOKENS, _table, decode, ids_by_bytes

# Ids as OpenAI's own tokeniser gives them.
KNOWN = [
    ([9906, 1917, 0], "Hello world!"),
    ([15339, 1917], "hello world"),
    ([83, 1609, 5963, 374, 2294, 0], "tiktoken is great!"),
    ([76460, 224], "😂"),
    ([37, 2448, 24352, 11, 220, 68464, 47653, 323, 95980, 588, 2001], "Füße, 东京 and naïve —"),
    ([100257], "<|endoftext|>"),
    ([100276], "<|endofprompt|>"),
]


@pytest.mark.parametrize(("ids", "text"), KNOWN)
def test_known_ids_give_their_text(ids: list[int], text: str) -> None:
    assert decode(ids) == text


def test_the_table_is_openais() -> None:
    table = _table()
    assert len(table) == TOKENS + len(SPECIAL)
    assert [table[i] for i in range(3)] == [b"!", b'"', b"#"]
    digest = hashlib.sha256(b"".join(len(t).to_bytes(2) + t for t in table.values()))
    assert digest.hexdigest() == "302d16eb4ef7af2383de92b1c3c5b517a54a6b72925cdb1691ba64e2be83d185"
    assert {bytes([i]) for i in range(256)} <= set(table.values())  # so every text has ids


@settings(deadline=None)  # the first of them reads the table
@given(st.text())
def test_the_ids_of_a_texts_bytes_give_the_text(text: str) -> None:
    ids = ids_by_bytes()
    assert decode([ids[bytes([b])] for b in text.encode()]) == text


@given(st.lists(st.sampled_from([*range(TOKENS), *SPECIAL])))
def test_any_ids_give_some_text(ids: list[int]) -> None:
    assert decode(ids).encode().decode() == decode(ids)


def test_a_character_cut_in_two_is_replaced() -> None:
    ids = ids_by_bytes()
    assert decode([ids[b"a"], ids[b"\xf0"], ids[b"b"]]) == "a\ufffdb"


@pytest.mark.parametrize("wrong", [-1, 100_256, 100_261, 100_275, 100_277, 10**30])
def test_what_is_no_id_is_named(wrong: int) -> None:
    with pytest.raises(KeyError, match=str(wrong)):
        decode([0, wrong])


def test_the_table_is_read_when_it_is_needed() -> None:
    script = (
        "import sys; from embedsvc.web import app\n"
        "from embedsvc.texts import cl100k\n"
        "assert cl100k._table.cache_info().currsize == 0\n"
        "cl100k.decode([0])\n"
        "assert cl100k._table.cache_info().currsize == 1\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
