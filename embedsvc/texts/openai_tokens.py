"""Counts the tokens that OpenAI counts in a text: its limits are in those, whatever model is here.

This is byte pair encoding (Sennrich et al., 2016, arXiv:1508.07909) with cl100k_base, whose ids say
which pair is joined first. It is done in Python, since few texts come near the limit.
"""

from functools import cache
from heapq import heapify, heappop, heappush

from tokenizers import Regex, pre_tokenizers

from embedsvc.texts.cl100k import ids_by_bytes
from embedsvc.texts.pieces import from_start
from embedsvc.texts.steps import Steps

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The words that a text is split into first; no token reaches from one into the next."""


def count_tokens(text: str, most: int) -> Steps[int]:
    """The number of tokens of a text, or some number above `most` if it has more than that."""
    tokens = 0
    known: dict[str, int] = {}  # words that take a while are often the same long run again
    for piece in from_start(text):
        if piece.start:
            yield
        for word, _ in _words().pre_tokenize_str(text[piece.start : piece.stop]):
            if word not in known:
                known[word] = count_parts(word.encode("utf-8", "replace"))
            tokens += known[word]
        if tokens > most:
            break
    return tokens


def count_parts(word: bytes) -> int:
    """The number of tokens of a word; the time grows with n log n for a word of n bytes.

    >>> count_parts(b"hello"), count_parts(b"embedsvc")
    (1, 2)
    """
    ids = ids_by_bytes()
    if word in ids:
        return 1
    size = parts = len(word)
    ends = list(range(1, size + 1))  # where a part ends, by where it begins; 0 if it was joined
    before = list(range(-1, size))  # where the part before begins, by where a part begins
    pairs = [
        (ids[pair], at, at + 2) for at in range(size - 1) if (pair := word[at : at + 2]) in ids
    ]
    heapify(pairs)
    while pairs:
        _, first, end = heappop(pairs)
        second = ends[first]
        if not 0 < second < size or ends[second] != end:
            continue  # one of the two parts was joined with another meanwhile
        ends[first], ends[second] = end, 0
        parts -= 1
        if end < size:
            before[end] = first
            if (pair := word[first : ends[end]]) in ids:
                heappush(pairs, (ids[pair], first, ends[end]))
        if (other := before[first]) >= 0 and (pair := word[other:end]) in ids:
            heappush(pairs, (ids[pair], other, end))
    return parts


@cache
def _words() -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(WORDS), "isolated")
