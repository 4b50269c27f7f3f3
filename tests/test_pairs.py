"""Pairs of texts in tokens: exactly those that the library gives, a query read once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

from embedsvc.errors import BadRequest, CheckpointError, TooManyTokens
from embedsvc.texts.halves import EDGES
from embedsvc.texts.item import Item
from embedsvc.texts.pairs import CutPairs, PairOptions, TokenizedPairs, tokenize_pairs
from embedsvc.texts.pieces import PIECE
from embedsvc.texts.steps import Steps, run_to_end, take_step
from embedsvc.texts.tokenizer import Tokenizer
from tests.support.checkpoints import write_tokenizer
from tests.support.counting_tokenizer import FOLDERS, KINDS, PROSE, Counting

OPTIONS = PairOptions()


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """One that puts [CLS] and [SEP] around texts, and takes 16 tokens."""
    write_tokenizer(tmp_path)
    return Tokenizer("tiny", tmp_path, 16)


def pairs_of(
    tokenizer: Tokenizer,
    queries: Sequence[str | None],
    documents: Sequence[str],
    options: PairOptions = OPTIONS,
) -> TokenizedPairs:
    return run_to_end(tokenize_pairs(tokenizer, queries, documents, options))


PAIRS = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]),
    "xlm-roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]),
}
"""What classes of transformers put around texts, though these tokenizer.json files do not say it of
pairs."""


def opened(kind: str, most: int) -> Counting:
    """A tokeniser whose library is told what its class of transformers does."""
    tokenizer = Counting(kind, most)
    if kind in PAIRS:
        single, pair, special = PAIRS[kind]
        tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single, pair, special)
    return tokenizer


@pytest.mark.parametrize("kind", PAIRS)
def test_a_class_says_what_stands_between_texts_where_no_file_does(kind: str) -> None:
    texts = [np.array([7], np.int32), np.array([8, 9], np.int32)]
    by_file, by_class = Tokenizer(kind, FOLDERS / kind, 64), opened(kind, 64)
    found, expected = (each.frame(2).put_together(texts) for each in (by_file, by_class))
    assert found.ids.tolist() == expected.ids.tolist()
    assert types_of(found) == types_of(expected)


def by_library(
    tokenizer: Tokenizer, pair: tuple[str, str], most: int, side: CutPairs
) -> tuple[list[int], list[int]]:
    """The ids and types that the library gives of a pair, which it cuts itself."""
    library = tokenizer._tokenizer
    library.enable_truncation(most, direction="left" if side == "start" else "right")
    try:
        (encoding,) = library.encode_batch([pair])
    finally:
        library.no_truncation()
    return encoding.ids, encoding.type_ids


def types_of(item: Item) -> list[int]:
    return [0] * len(item) if item.types is None else item.types.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["end", "start"])
def test_pairs_are_cut_as_the_library_cuts_them(
    kind: str, side: CutPairs, random: np.random.Generator
) -> None:
    tokenizer = opened(kind, 64)
    words = PROSE.split(" ")
    for most in (*range(7, 24), 64):
        tokenizer.max_tokens = most
        query, document = (" ".join(random.choice(words, n)) for n in random.integers(0, 40, 2))
        (item,) = pairs_of(tokenizer, [query], [document], PairOptions(side)).items
        ids, types = by_library(tokenizer, (query, document), most, side)
        assert item.ids.tolist() == ids
        assert kind != "bert" or types_of(item) == types


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_by_itself_is_framed_as_ever(kind: str) -> None:
    tokenizer = Tokenizer(kind, FOLDERS / kind, 512)
    found = pairs_of(tokenizer, [None, "two", None], ["one text", "texts", PROSE])
    first, third = tokenizer.encode(["one text", PROSE])
    assert found.items[0].ids.tolist() == first.tolist()
    assert found.items[2].ids.tolist() == third.tolist()
    assert found.cut == 0


def test_a_query_of_many_documents_is_tokenised_once() -> None:
    tokenizer = Counting("bert", 128)
    documents = [f"document {n}" for n in range(200)]
    pairs_of(tokenizer, ["which one is it?"] * 200, documents)
    tokenizer.given.clear()
    found = pairs_of(tokenizer, ["which one is it?"] * 200, documents)
    assert sum(tokenizer.given) == len("which one is it?") + sum(map(len, documents))
    assert len(found.items) == 200


def test_a_pair_has_the_types_that_its_model_was_trained_with(tokenizer: Tokenizer) -> None:
    (item,) = pairs_of(tokenizer, ["a b"], ["hello"]).items
    assert item.ids.tolist() == [2, 4, 5, 3, 30, 3]
    assert types_of(item) == [0, 0, 0, 0, 1, 1]


def test_a_model_without_types_is_given_none() -> None:
    pair = (["a query"], ["a document"])
    for kind in ("roberta", "xlm-roberta", "gemma", "qwen"):
        (item,) = pairs_of(Tokenizer(kind, FOLDERS / kind, 64), *pair).items
        assert item.types is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["end", "start"])
def test_a_long_text_is_read_no_further_than_its_model_takes_it(kind: str, side: CutPairs) -> None:
    tokenizer = opened(kind, 256)
    tokenizer.frame(2)  # asks for a pair
    tokenizer.given.clear()
    long = "".join(f"{n} bottles of beer, " for n in range(100_000))
    found = pairs_of(tokenizer, ["how many?", long], [long, "beer"], PairOptions(side))
    assert sum(tokenizer.given) <= 8 * PIECE
    assert found.cut == 2
    assert [len(item) for item in found.items] == [256, 256]
    part = long[: 4 * PIECE] if side == "end" else long[-4 * PIECE :]
    for item, pair in zip(found.items, [("how many?", part), (part, "beer")], strict=True):
        assert item.ids.tolist() == by_library(tokenizer, pair, 256, side)[0]


def test_other_work_runs_between_groups_of_documents() -> None:
    tokenizer = Tokenizer("bert", FOLDERS / "bert", 64)
    work: Steps[TokenizedPairs] = tokenize_pairs(tokenizer, ["q"] * 1000, ["d"] * 1000, OPTIONS)
    steps = 1
    while take_step(work) is None:
        steps += 1
    assert steps > 10


def test_a_pair_that_is_too_long_is_refused_by_its_name(tokenizer: Tokenizer) -> None:
    options = PairOptions("error", documents="texts")
    with pytest.raises(BadRequest, match=r"'texts\[1\]'.* 16 tokens.*34 tokens.*scored.*trunc"):
        pairs_of(tokenizer, ["a"] * 2, ["b", "hello " * 30], options)
    with pytest.raises(BadRequest, match=r"'texts'.*more than \d+ tokens"):
        pairs_of(tokenizer, ["one"], ["hello " * 100_000], options)
    tokenizer.max_tokens = 4
    with pytest.raises(BadRequest, match=r"'documents'.* 4 tokens"):
        pairs_of(tokenizer, ["one"], ["two"])


def test_texts_are_cut_to_their_own_limits_first(tokenizer: Tokenizer) -> None:
    options = PairOptions("error", max_tokens_per_query=2, max_tokens_per_doc=3)
    found = pairs_of(tokenizer, ["a b c d"] * 2, ["a b c d " * 9999, "a"], options)
    assert [len(item) for item in found.items] == [3 + 2 + 3, 3 + 2 + 1]
    assert found.cut == 2
    (item,) = pairs_of(tokenizer, ["a"], ["b c d"], PairOptions("start", None, 1)).items
    assert item.ids.tolist() == by_library(tokenizer, ("a", "d"), 16, "end")[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["end", "start"])
def test_a_text_with_a_limit_is_read_no_further_and_has_the_same_tokens(
    kind: str, side: CutPairs, random: np.random.Generator
) -> None:
    tokenizer = Counting(kind, 512)
    mixed = "".join(random.choice([*EDGES, "東", "word", *"     "], 6000))
    documents = [
        mixed,
        mixed.replace(" ", ""),
        "x" * 16_000,
        "word " * 3000,
        "東京" * 4000,
        "\n" * 9000,
    ]
    (query,) = tokenizer.encode(["q"], special=False)
    for most in (1, 50):
        expected: list[list[int]] = []
        for ids in tokenizer.encode(documents, special=False):
            kept = ids[:most] if side == "end" else ids[max(len(ids) - most, 0) :]
            expected.append(tokenizer.frame(2).put_together([query, kept]).ids.tolist())
        options = PairOptions(side, max_tokens_per_doc=most)
        found = pairs_of(tokenizer, ["q"] * len(documents), documents, options).items
        assert [item.ids.tolist() for item in found] == expected
    tokenizer.given.clear()
    pairs_of(tokenizer, ["q"] * 20, ["word " * 3000] * 20, PairOptions(side, None, 1))
    assert sum(tokenizer.given) <= 20 * 2048 + 1


def test_a_request_has_so_many_tokens_of_pairs(tokenizer: Tokenizer) -> None:
    options = PairOptions(request_tokens=20)
    assert len(pairs_of(tokenizer, ["a"] * 4, ["b"] * 4, options).items) == 4
    with pytest.raises(TooManyTokens, match="Requested 25 tokens, max 20"):
        pairs_of(tokenizer, ["a"] * 5, ["b"] * 5, options)
    with pytest.raises(TooManyTokens, match="more than 320"):
        pairs_of(tokenizer, ["a"] * 500, ["b"] * 500, options)


def test_a_tokeniser_that_repeats_a_text_is_refused(tokenizer: Tokenizer) -> None:
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B $A", special_tokens=[]
    )
    tokenizer._frames.clear()
    with pytest.raises(CheckpointError, match="does not put each text of a pair in one place"):
        tokenizer.frame(2)
