"""Tokens as OpenAI counts them: what OpenAI takes is taken, and what is longer is refused."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import BadRequest
from embedsvc.texts.cl100k import ids_by_bytes
from embedsvc.texts.inputs import InputOptions, tokenize
from embedsvc.texts.openai_tokens import count_parts, count_tokens
from embedsvc.texts.pieces import PIECE
from embedsvc.texts.steps import run_to_end, take_step
from embedsvc.texts.truncation import OPENAI
from tests.support.counting_tokenizer import (
    MB,
    Counting,
    ids_of,
    read,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # As OpenAI's own tokeniser has it.
        ("Hello world!", 3),
        ("Füße, 东京 and naïve —", 11),
        ("a" * 16_000, 2000),
        (" " * 16_000, 125),
        ("中文" * 8000, 16_000),
        ("=-" * 5000, 625),
        ("\n" * 3000, 95),
        ("x \n \n\t y" * 500, 2000),
        ("🙂é\u0301" * 2000, 8000),
        ("word " * 8191, 8192),
        ("don'T I'LL we're 123456 \u00a0\u2003x" * 300, 4200),
    ],
)
def test_tokens_are_counted_as_openai_does(text: str, tokens: int) -> None:
    assert run_to_end(count_tokens(text, 1 << 60)) == tokens


def test_counting_stops_where_there_are_more() -> None:
    work = count_tokens("word " * MB, 8191)
    steps = 0
    while (result := take_step(work)) is None:
        steps += 1
    assert 8191 < result.value < 8191 + PIECE
    assert steps <= 3


@given(st.sampled_from([b"a", b" ", "中文".encode(), b"lower", b"\xff"]), st.integers(1, 90))
@settings(deadline=None)
def test_parts_are_joined_in_the_order_of_their_ids(unit: bytes, times: int) -> None:
    word, ids = unit * times, ids_by_bytes()
    parts = [word[i : i + 1] for i in range(len(word))]
    while pairs := [(ids[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ids]:
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    assert count_parts(word) == (1 if word in ids else len(parts))


LONGEST: list[tuple[str, Callable[[int], str]]] = [
    ("words", lambda n: "word " * (n - 1) + "word"),
    ("chinese", lambda n: "的一是不了人我在有他" * (n // 10) + "的" * (n % 10)),
    ("code", lambda n: "();\n" * (n // 2)),
]


@pytest.mark.parametrize("text", [text for _, text in LONGEST], ids=[name for name, _ in LONGEST])
def test_what_openai_takes_is_taken_whatever_the_model_makes_of_it(
    text: Callable[[int], str],
) -> None:
    tokenizer = Counting("bert", 256)
    longest = text(8191)
    assert run_to_end(count_tokens(longest, 1 << 60)) <= 8191
    found = read(tokenizer, longest, OPENAI)
    assert found.parts[0] > 10
    assert found.cut == 0
    with pytest.raises(BadRequest, match=r'is 8191 tokens.*send "truncate": "end"'):
        read(tokenizer, text(20_000), OPENAI)


@pytest.mark.parametrize("ids", [8191, 8192])
def test_ids_are_counted_as_they_are(ids: int) -> None:
    tokenizer = Counting("bert", 256)
    value = [ids_by_bytes()[b"=" * 64]] * ids  # some sixty tokens each, in the model's own
    work = tokenize(tokenizer, [value], InputOptions(rule=OPENAI))
    if ids == 8191:
        assert run_to_end(work).parts[0] > 2000
    else:
        with pytest.raises(BadRequest, match="is 8191 tokens, however you requested 8192 tokens"):
            run_to_end(work)


def test_a_model_that_takes_more_takes_it() -> None:
    tokenizer = Counting("bert", 20_000)
    assert [len(ids) for ids in ids_of(read(tokenizer, "a " * 19_000, OPENAI))] == [19_002]
    with pytest.raises(BadRequest, match="is 20000 tokens, however you requested more than 2"):
        read(tokenizer, "a " * 40_000, OPENAI)
