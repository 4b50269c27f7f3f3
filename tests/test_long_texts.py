"""Texts longer than a model takes: tokenised no further than needed, and exactly if they fit.

What is counted is what the library was given, in characters.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding

from embedsvc.bounds import TEXT_CHARACTERS
from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest, EmbeddingFailed, TooManyTokens
from embedsvc.texts.explained import explain
from embedsvc.texts.inputs import InputOptions, Tokenized, count_characters, tokenize
from embedsvc.texts.item import LocatedTokens
from embedsvc.texts.pieces import PIECE, from_end, from_start
from embedsvc.texts.steps import Result, run_to_end, take_step
from embedsvc.texts.truncation import OPENAI, Rule, fit
from tests.support.counting_tokenizer import KINDS, MB, PROSE, Counting, ids_of, read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [Rule(), OPENAI], ids=["error", "openai"])
def test_too_long_is_found_out_without_what_lies_beyond(kind: str, rule: Rule) -> None:
    tokenizer = Counting(kind, 256)
    with pytest.raises(BadRequest, match=r"maximum context length is \d+ tokens.*more than \d+"):
        read(tokenizer, "word and more " * 700_000, rule)
    assert sum(tokenizer.given) <= 8 * PIECE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncate", ["end", "start"])
def test_a_cut_takes_no_more_than_it_leaves(kind: str, truncate: Truncate) -> None:
    tokenizer = Counting(kind, 256)
    text = "".join(f"{n} bottles of beer, " for n in range(400_000))
    found = read(tokenizer, text, Rule(truncate))
    assert found.cut == 1
    assert [len(ids) for ids in ids_of(found)] == [256]
    assert sum(tokenizer.given) <= 3 * PIECE
    near = text[: 2 * PIECE] if truncate == "end" else text[-2 * PIECE :]
    (whole,) = tokenizer.encode([near])
    ids = ids_of(found)[0]
    middle = slice(2, 250) if truncate == "end" else slice(6, 254)
    where = slice(2, 250) if truncate == "end" else slice(len(whole) - 250, len(whole) - 2)
    assert ids[middle].tolist() == whole[where].tolist()


@pytest.mark.parametrize("kind", ["bert", "qwen", "xlm-roberta"])
@pytest.mark.parametrize("unit", ["a", " ", "\n", "🙂", "\u0301"])
@pytest.mark.parametrize("truncate", ["error", "start", "chunk"])
def test_millions_of_characters_of_one_kind_are_within_bounds(
    kind: str, unit: str, truncate: Truncate
) -> None:
    tokenizer = Counting(kind, 256)
    rule = Rule(truncate, request_tokens=20_000)
    if truncate == "start":
        assert [len(ids) <= 256 for ids in ids_of(read(tokenizer, unit * 10 * MB, rule))] == [True]
    else:
        with pytest.raises(BadRequest, match=r"more than [0-9]+ tokens|1048576 characters"):
            read(tokenizer, unit * 10 * MB, rule)
    assert sum(tokenizer.given) <= TEXT_CHARACTERS + 4 * PIECE
    assert max(tokenizer.given) <= PIECE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncate", ["error", "start", "chunk"])
def test_what_fits_has_the_tokens_of_the_whole(kind: str, truncate: Truncate) -> None:
    tokenizer = Counting(kind, 1_000_000)
    for text in (
        PROSE * 500,
        "東京" * 20_000,
        "x" * 20_000,
        " " * 20_000 + "end",
        "a\u0301" * 10_000,
    ):
        found = read(tokenizer, text, Rule(truncate), prompt="query: ")
        (whole,) = tokenizer.encode(["query: " + text])
        assert [ids.tolist() for ids in ids_of(found)] == [whole.tolist()]
        assert found.cut == 0


def test_one_word_of_a_megabyte_is_one_unknown_token() -> None:
    tokenizer = Counting("bert", 256)
    assert [len(ids) for ids in ids_of(read(tokenizer, "a" * MB))] == [3]


def test_words_that_are_cut_do_not_make_a_text_too_long() -> None:
    # Each is one token, and a fragment of it, which a cut through it leaves, has many.
    text = " ".join(["a" * (PIECE + 90)] * 50)
    tokenizer = Counting("bert", 60)
    assert [len(ids) for ids in ids_of(read(tokenizer, text))] == [52]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_cover_a_text_of_many_pieces(kind: str) -> None:
    tokenizer = Counting(kind, 256)
    text = PROSE * 1500
    found = read(tokenizer, text, Rule("chunk"), prompt="query: ")
    (whole,) = tokenizer.encode(["query: " + text])
    frame = tokenizer.locate("東京", "query: ")
    prefix, suffix = frame.prefix, frame.suffix
    room = 256 - prefix - suffix
    joined = list(ids_of(found)[0][prefix : 256 - suffix])
    for ids in ids_of(found)[1:]:
        assert ids[:prefix].tolist() == frame.ids[:prefix].tolist()
        joined += ids[prefix + room // 8 : len(ids) - suffix].tolist()
    if kind == "gemma":  # it has tokens that begin with white space and those that end with it
        assert abs(len(joined) - len(whole)) < 30
    else:
        assert joined == whole[prefix : len(whole) - suffix].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [PROSE * 500, "x y" * 10_000, "東京" * 10_000])
def test_what_just_fits_is_not_refused_and_what_just_does_not_is(kind: str, text: str) -> None:
    (whole,) = Counting(kind, 1).encode([text])
    assert len(ids_of(read(Counting(kind, len(whole)), text))[0]) == len(whole)
    with pytest.raises(BadRequest, match=f"length is {len(whole) - 1} tokens"):
        read(Counting(kind, len(whole) - 1), text)


def test_parts_are_counted_before_they_are_made() -> None:
    ids = np.arange(100_000, dtype=np.int32)
    frame = LocatedTokens(ids, [], 255, 0)  # a prompt that leaves room for one token
    with pytest.raises(TooManyTokens, match="Requested 25534720 tokens, max 300000"):
        fit("input", frame, 256, Rule("chunk", request_tokens=300_000))


@given(text=st.text("ab \n\t\u2003🙂é\r", max_size=60), size=st.integers(1, 9))
def test_pieces_make_up_the_text(text: str, size: int) -> None:
    for pieces, order in ((from_start, 1), (from_end, -1)):
        found = list(pieces(text, size))[::order]
        assert "".join(text[piece.start : piece.stop] for piece in found) == text
        assert all(0 < piece.stop - piece.start <= size for piece in found)
        for piece in found:
            place = piece.stop if order == 1 else piece.start
            if piece.clean and 0 < place < len(text):
                assert text[place].isspace()
                assert not text[place - 1].isspace()


def test_a_request_with_too_many_tokens_is_not_read_to_its_end() -> None:
    tokenizer = Counting("bert", 4096)
    texts = ["a " * 4000] * 2048
    with pytest.raises(TooManyTokens, match=r"Requested more than 3[0-9]{5} tokens, max 300000"):
        run_to_end(tokenize(tokenizer, texts, InputOptions(rule=Rule(request_tokens=300_000))))
    assert sum(tokenizer.given) < 100 * len(texts[0])


def test_steps_are_short() -> None:
    tokenizer = Counting("bert", 512)
    texts = ["a " * 100] * 2048
    work = tokenize(tokenizer, texts, InputOptions())
    longest = steps = 0
    result: Result[Tokenized] | None = None
    while result is None:
        before = len(tokenizer.given)
        result = take_step(work)
        longest = max(longest, sum(tokenizer.given[before:]))
        steps += 1
    assert longest <= PIECE
    assert steps > 30
    assert len(ids_of(result.value)) == 2048


def test_a_prompt_counts_for_every_input() -> None:
    assert count_characters(["a", "b"], InputOptions("x" * 1000)) == 2002


def test_tokens_are_told_in_steps_and_not_beyond_the_limit() -> None:
    tokenizer = Counting("bert", 256)
    work = explain(tokenizer, ["the a " * 25_000], special=True, most=300_000)
    steps = 0
    while (result := take_step(work)) is None:
        steps += 1
    (tokens,) = result.value
    assert steps >= len(tokens) // 4096
    assert (tokens[0].text, tokens[0].special, tokens[0].start) == ("[CLS]", True, None)
    assert (tokens[-2].text, tokens[-2].start, tokens[-2].stop) == ("a", 149_998, 149_999)
    tokenizer.given.clear()
    with pytest.raises(TooManyTokens, match="Requested more than 1"):
        run_to_end(explain(tokenizer, ["the a " * 170_000], special=True, most=10_000))
    assert sum(tokenizer.given) <= 5 * PIECE
    with pytest.raises(BadRequest, match=r"Invalid 'inputs\[1\]': .* 1048576 characters"):
        run_to_end(explain(tokenizer, ["a", " " * 2 * MB], special=True, most=10_000))


def test_the_librarys_lists_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is of all the tokens, so that one for each token is quadratic."""
    tokenizer = Counting("bert", 256)
    asked: list[str] = []

    class Watched:
        def __init__(self, encoding: Encoding) -> None:
            self._encoding = encoding

        def __len__(self) -> int:
            return len(self._encoding)

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(self._encoding, name)

    (encoding,) = tokenizer.explain(["a " * 100], special=True)
    monkeypatch.setattr(tokenizer, "explain", lambda *_, **__: [Watched(encoding)])
    (tokens,) = run_to_end(explain(tokenizer, ["a " * 100], special=True, most=1000))
    assert len(tokens) == 102
    assert all(asked.count(name) <= 1 for name in set(asked) - {"token_to_chars"})


def test_what_the_library_gives_up_on_fails_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class PanicException(BaseException):
        """As the library's own: not an `Exception`."""

    tokenizer = Counting("bert", 256)
    library = tokenizer._tokenizer

    class Panicking:
        def encode_batch_fast(self, texts, **options):
            if any("boom" in text for text in texts):
                raise PanicException("retry-limit-in-match over")
            return library.encode_batch_fast(texts, **options)

    monkeypatch.setattr(tokenizer, "_tokenizer", Panicking())
    with pytest.raises(EmbeddingFailed, match="tokeniser failed"):
        tokenizer.encode(["boom"])
    assert "the tokeniser of model bert failed" in caplog.text
    assert "boom" not in caplog.records[0].getMessage()
    assert len(tokenizer.encode(["to be"])) == 1


def test_many_texts_of_next_to_no_tokens_are_not_read_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("embedsvc.texts.inputs.REQUEST_CHARACTERS", 500_000)
    tokenizer = Counting("bert", 256)
    texts = ["a" * 100_000] * 2048
    with pytest.raises(BadRequest, match="may have 500000 characters together"):
        run_to_end(tokenize(tokenizer, texts, InputOptions(rule=Rule(request_tokens=10_000))))
    assert sum(tokenizer.given) <= 1_200_000  # each is looked at, and then tokenised as a whole


def test_the_beginning_of_many_long_texts_costs_little() -> None:
    tokenizer = Counting("bert", 256)
    texts = [PROSE * 500] * 100
    found = run_to_end(
        tokenize(tokenizer, texts, InputOptions(rule=Rule("end", request_tokens=300_000)))
    )
    assert len(ids_of(found)) == 100
    assert sum(tokenizer.given) <= 100 * 2 * 4096
