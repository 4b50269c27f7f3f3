"""From text to the model's token ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tokenizer_files import read_tokenizer
from embedsvc.ops.base import TokenIds
from embedsvc.texts.tokens import LocatedTokens


class Tokenizer:
    """The checkpoint's own tokeniser, with nothing cut and nothing padded. Use it on any thread."""

    def __init__(
        self,
        model: str,
        folder: Path,
        max_tokens: int,
        *,
        special_tokens: bool = True,
        rows: int | None = None,
        plain: Sequence[str] = (),
    ) -> None:
        """Of a model with vectors for so many tokens (`rows`), if that is known."""
        self._tokenizer = read_tokenizer(
            model, folder, alone=not special_tokens, rows=rows, plain=plain
        )
        self._special_tokens = special_tokens
        self.max_tokens = max_tokens
        vocabulary = self._tokenizer.get_vocab_size()
        self.vocabulary = vocabulary if rows is None else min(vocabulary, rows)

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of each text, special tokens included, (L,) each, however long."""
        encodings = self._tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=self._special_tokens
        )
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def locate(self, text: str, prompt: str = "") -> LocatedTokens:
        """The tokens of prompt and text; one that reaches from the one into the other is text."""
        encoding = self._tokenizer.encode(prompt + text, add_special_tokens=self._special_tokens)
        special, offsets = encoding.special_tokens_mask, encoding.offsets
        count, head, tail = len(special), 0, 0
        while head < count and special[head]:
            head += 1
        while tail < count - head and special[count - 1 - tail]:
            tail += 1
        while head < count - tail and offsets[head][1] <= len(prompt):
            head += 1
        return LocatedTokens(
            np.array(encoding.ids, dtype=np.int32),
            [(start - len(prompt), end - len(prompt)) for start, end in offsets],
            head,
            tail,
        )

    def explain(self, texts: Sequence[str], *, special: bool) -> list[Encoding]:
        """Tokens, ids and offsets of each text, as the library gives them."""
        return self._tokenizer.encode_batch(
            list(texts), add_special_tokens=special and self._special_tokens
        )


def open_tokenizer(checkpoint: Checkpoint, rows: int | None) -> Tokenizer:
    """The tokeniser of a checkpoint that has vectors for so many tokens, if that is known.

    Raises `CheckpointError` that names the file, also where a token has no vector.
    """
    return Tokenizer(
        checkpoint.card.id,
        checkpoint.folder,
        checkpoint.max_tokens,
        special_tokens=checkpoint.special_tokens,
        rows=rows,
        plain=checkpoint.card.plain_tokens,
    )
