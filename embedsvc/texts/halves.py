"""Where the text that a template puts between query and document can be cut in two.

What is before the cut is then tokenised once for all documents of a query, and what is behind it by
itself, though a tokeniser has tokens that reach from a text into the words around it. The tokeniser
is asked, once, with texts that begin and end in many ways.
"""

from collections.abc import Sequence
from typing import Protocol

from embedsvc.texts.item import TokenIds

EDGES = (
    *(
        "",
        "word",
        "Word's",
        "'s",
        "3.5",
        "42",
        "?",
        '."',
        "...",
        ":",
        ">",
        "<",
        "(",
        "_",
        "-",
        "\\",
    ),
    *(" ", "  ", " a", "a ", "a  ", "\n", "\n\n", "\r\n", " \n ", "\t", ".\n", "\n- b", "\u00a0"),
    *("東京", "。", "straße", "é", "\u0301", "🙂", "Я", "قطة", "ﬁ", "½", "\u200d", "▁", "Ġ", "##a"),
)
"""Texts with which a query may end, or a document begin."""
SHIFTS = (0, 1, 5, 17)
"""How far apart in `EDGES` the two are that are tried together."""


class Tokenizing(Protocol):
    """What is needed of a tokeniser."""

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[TokenIds]: ...

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]: ...


def find_cut(tokenizer: Tokenizing, between: str) -> int | None:
    """The last place in a text at which it can be cut, whatever is before the text and behind it.

    None if the tokens of both sides are nowhere those of the whole.
    """
    (offsets,) = tokenizer.offsets([f"a{between}a"])
    cuts = {end - 1 for _, end in offsets if 1 < end <= len(between)}
    pairs = [(i - shift, i) for shift in SHIFTS for i in range(len(EDGES))]
    texts = [EDGES[first] + between + EDGES[second] for first, second in pairs]
    whole = _encode(tokenizer, texts)
    for cut in sorted(cuts, reverse=True):
        before = _encode(tokenizer, [edge + between[:cut] for edge in EDGES])
        after = _encode(tokenizer, [between[cut:] + edge for edge in EDGES])
        halves = [before[first] + after[second] for first, second in pairs]
        if halves == whole:
            return cut
    return None


def _encode(tokenizer: Tokenizing, texts: Sequence[str]) -> list[list[int]]:
    return [ids.tolist() for ids in tokenizer.encode(texts, special=False)]
