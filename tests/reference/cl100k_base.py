"""Packs OpenAI's table of cl100k_base tokens, as tiktoken publishes it, for `texts.cl100k`.

    python tests/reference/cl100k_base.py cl100k_base.tiktoken embedsvc/data/cl100k_base.xz

In: a line "<base64 of the token> <id>" for each token. Out, compressed: the lengths of all tokens
in the order of their ids, one byte each, then the tokens themselves.
"""

import base64
import lzma
import sys
from pathlib import Path

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    lines = [line.split() for line in source.read_bytes().splitlines()]
    tokens = [base64.b64decode(token) for token, _ in lines]
    assert [int(number) for _, number in lines] == list(range(100_256))
    packed = bytes(map(len, tokens)) + b"".join(tokens)
    target.write_bytes(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(tokens)} tokens, {target.stat().st_size} bytes")
