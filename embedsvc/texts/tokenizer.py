"""From text to the model's token ids."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tokenizer_files import read_tokenizer
from embedsvc.errors import EmbeddingFailed
from embedsvc.texts.item import Item, LocatedTokens, TokenIds

log = logging.getLogger(__name__)


class Tokenizer:
    """The checkpoint's own tokeniser, with nothing cut and nothing padded. Use it on any thread.

    The library lets other threads run while it tokenises a batch, of one text too, but not while it
    tokenises a single text, nor while it makes lists of what it found. So it is given batches, and
    no text of more than some hundred thousand tokens; see `long_text`.

    All its methods raise `EmbeddingFailed` where the library gives up on a text, as it does when a
    pattern in the model's files would take for ever.
    """

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
        self._model = model
        self._tokenizer = read_tokenizer(
            model, folder, alone=not special_tokens, rows=rows, plain=plain
        )
        self._special_tokens = special_tokens
        self.max_tokens = max_tokens
        vocabulary = self._tokenizer.get_vocab_size()
        self.vocabulary = vocabulary if rows is None else min(vocabulary, rows)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[TokenIds]:
        """Ids of each text, (L,) each, however long; with the special tokens if `special`."""
        encodings = self._encode(texts, special=special, offsets=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Item]:
        """Each pair as one item, with the special tokens between and around its texts."""
        return [
            Item(np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32))
            for encoding in self._encode(pairs, special=True, offsets=False)
        ]

    def locate(self, text: str, prompt: str = "") -> LocatedTokens:
        """The tokens of prompt and text; one that reaches from the one into the other is text."""
        (encoding,) = self._encode([prompt + text], special=True, offsets=True)
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
        """Tokens, ids and offsets of each text, as the library gives them.

        Each of their properties makes a new list of the whole, so ask for it once.
        """
        return self._encode(texts, special=special, offsets=True)

    def name_of(self, token: int) -> str:
        """The token with that id, as the vocabulary has it."""
        return self._tokenizer.id_to_token(token) or ""

    def _encode(
        self, texts: Sequence[str | tuple[str, str]], *, special: bool, offsets: bool
    ) -> list[Encoding]:
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        try:
            return encode(list(texts), add_special_tokens=special and self._special_tokens)
        except BaseException as error:
            # What the library, which is Rust, raises where it has an error of its own or a pattern
            # takes too long is no `Exception`, and would pass all who see to those.
            if type(error).__name__ != "PanicException":
                raise
            log.exception("the tokeniser of model %s failed", self._model)
            raise EmbeddingFailed("The model's tokeniser failed on an input.") from None


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
