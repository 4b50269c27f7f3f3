"""A cut between two texts, on both sides of which the tokens are those of the whole."""

import numpy as np
import pytest
from tokenizers import normalizers

from embedsvc.texts.halves import EDGES, find_cut
from tests.support.counting_tokenizer import FOLDERS, KINDS, Counting, Tokenizer

BETWEEN = ("\n<Document>: ", "</query>\n<document>\n", ".\n\nText: ", " and ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("between", BETWEEN)
def test_the_tokens_of_both_halves_are_those_of_the_whole(
    kind: str, between: str, random: np.random.Generator
) -> None:
    tokenizer = Tokenizer(kind, FOLDERS / kind, 512)
    cut = find_cut(tokenizer, between)
    if cut is None:
        return
    assert 0 < cut < len(between)
    texts = ["".join(random.choice(EDGES, n)) for n in random.integers(0, 6, 300)]
    for first, second in zip(texts, reversed(texts), strict=True):
        halves = tokenizer.encode([first + between[:cut], between[cut:] + second], special=False)
        (whole,) = tokenizer.encode([first + between + second], special=False)
        assert np.concatenate(halves).tolist() == whole.tolist(), (first, second)


def test_what_qwen_s_template_has_between_query_and_document_can_be_cut() -> None:
    tokenizer = Counting("qwen", 512)
    assert tokenizer.cut("\n<Document>: ") == len("\n<Document>:")
    tokenizer.given.clear()
    assert tokenizer.cut("\n<Document>: ") is not None
    assert tokenizer.given == []  # it is asked once
    for number in range(40):
        tokenizer.cut(f" {number} ")
    assert len(tokenizer._cuts) <= 16


def test_no_cut_is_found_where_the_beginning_of_a_text_is_special() -> None:
    tokenizer = Tokenizer("qwen", FOLDERS / "qwen", 512)
    tokenizer._tokenizer.normalizer = normalizers.Prepend("word")
    assert find_cut(tokenizer, "\n<Document>: ") is None
    assert find_cut(Tokenizer("qwen", FOLDERS / "qwen", 512), "") is None
