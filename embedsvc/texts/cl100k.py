"""OpenAI's token ids, turned back into the text that a client had before it made cl100k_base ids.

OpenAI's API takes ids in place of text, and some clients send nothing else. Every model has a
vocabulary of its own, so it is the text that is tokenised here.
"""

import lzma
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

TOKENS = 100_256
SPECIAL = {
    100_257: b"<|endoftext|>",
    100_258: b"<|fim_prefix|>",
    100_259: b"<|fim_middle|>",
    100_260: b"<|fim_suffix|>",
    100_276: b"<|endofprompt|>",
}
SOME = 8192
"""How many ids' bytes are joined in one call; no other thread runs meanwhile."""
FILE = Path(__file__).parents[1] / "data" / "cl100k_base.xz"
"""tests/reference/cl100k_base.py packs it."""


def decode(ids: Sequence[int]) -> str:
    """The text of cl100k_base ids. Bytes that are no UTF-8, as where a text was cut, become U+FFFD.

    Raises `KeyError` with the first number that is no id.

    >>> decode([15339, 1917])
    'hello world'
    """
    table = _table()
    some = (ids[first : first + SOME] for first in range(0, len(ids), SOME))
    return b"".join([_join(table, part) for part in some]).decode(errors="replace")


def _join(table: dict[int, bytes], ids: Sequence[int]) -> bytes:
    return b"".join([table[token] for token in ids])


@cache
def ids_by_bytes() -> dict[bytes, int]:
    """The ids of all tokens that are not special. Of two tokens, the one that is joined first has
    the lower id."""
    return {token: number for number, token in _table().items() if number < TOKENS}


@cache
def _table() -> dict[int, bytes]:
    """The bytes of each token, by its id. Reading the file takes a tenth of a second, and happens
    when the first client sends ids."""
    packed = lzma.decompress(FILE.read_bytes())
    ends = accumulate(packed[:TOKENS], initial=TOKENS)
    return dict(enumerate(packed[start:end] for start, end in pairwise(ends))) | SPECIAL
