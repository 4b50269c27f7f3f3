"""Bytes of JSON, looked through in stretches, against what the standard library makes of them."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.web.bodies import json_bytes
from embedsvc.web.bodies.json_bytes import count, mend

PIECES = ["\\\\", '\\"', "\\n", "\\ud83d", "\\ude00", "\\uD83D", "\\uDe0A", "\\u0041", "\\udbff"]
PIECES += ["u", "d83d", "a", "é", "😀", "[", "{", ",", "ud83d", "\\\\ud83d", "\\udc00\\udc00"]
HALF = re.compile("[\ud800-\udfff]")
strings = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
documents = st.recursive(
    st.none() | st.integers(0, 99) | st.text(max_size=4) | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(text=strings, stretch=st.integers(1, 30))
def test_halves_of_pairs_become_u_fffd_and_all_else_stays(text: str, stretch: int) -> None:
    body = f'{{"{text}": ["{text}"]}}'.encode()
    expected = HALF.sub("�", json.loads(f'"{text}"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bytes, "STRETCH", stretch)
        mended = mend(body)
    assert json.loads(mended) == {expected: [expected]}
    assert len(mended) == len(body)
    if expected == json.loads(f'"{text}"'):
        assert mended is body


@given(document=documents, stretch=st.integers(1, 30), plain=st.booleans())
def test_as_much_is_counted_as_there_is(document: Any, stretch: int, plain: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bytes, "STRETCH", stretch)
        counts = count(json.dumps(document, ensure_ascii=plain).encode())
    values, containers = made(document)
    assert counts.containers == containers
    assert values <= counts.values <= values + containers


def made(document: Any) -> tuple[int, int]:
    """Values, names of fields among them, and how many are lists or objects."""
    inner = list(document.values()) if isinstance(document, dict) else document
    if not isinstance(inner, list):
        return 1, 0
    counted = [made(each) for each in inner]
    values = 1 + sum(pair[0] for pair in counted) + len(document) * isinstance(document, dict)
    return values, 1 + sum(pair[1] for pair in counted)


@pytest.mark.parametrize("body", [b"", b"\\", b'"\\', b"\\ud83", b'"\\ud83d', b"\\u", b"\xff\\ud8"])
def test_what_is_no_json_is_no_trouble(body: bytes) -> None:
    assert len(mend(body)) == len(body)
    assert count(body).values >= 0
