"""From text to the model's token ids."""

import logging
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Encoding

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.checkpoints.tokenizer_files import has_types, read_tokenizer, separators
from embedsvc.errors import CheckpointError, EmbeddingFailed
from embedsvc.texts.frame import Frame, frame_of
from embedsvc.texts.halves import find_cut
from embedsvc.texts.item import LocatedTokens, TokenIds

log = logging.getLogger(__name__)
CUTS = 16
"""How many cuts are remembered: a template has one, or with a client's instruction in it others."""


class Tokenizer:
    """The checkpoint's own tokeniser. It cuts no text and pads none, and may be used on any thread.

    The library lets other threads run while it tokenises a batch, even one of a single text, but
    not while it tokenises a text by itself, nor while it makes lists of what it found. So it is
    given batches, and no text of more than some hundred thousand tokens; see `long_text`.

    All methods raise `EmbeddingFailed` where the library gives up on a text, as it does when a
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
        markers: Sequence[str] = (),
    ) -> None:
        """`rows` is how many tokens have word embeddings, if that is known; for `plain` see
        `read_tokenizer`, for `markers` see `LateInteraction`."""
        self._model = model
        self._file = folder / "tokenizer.json"
        self._tokenizer = read_tokenizer(
            model, folder, alone=not special_tokens, rows=rows, plain=plain
        )
        _keep_whole(self._tokenizer, markers)
        self._special_tokens = special_tokens
        self.max_tokens = max_tokens
        vocabulary = self._tokenizer.get_vocab_size()
        self.vocabulary = vocabulary if rows is None else min(vocabulary, rows)
        """Ids of tokens are below this."""
        self._typed = has_types(model, folder)
        self._separators = separators(model, folder)
        self._frames: dict[int, Frame] = {}
        self._cuts: dict[str, int | None] = {}

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[TokenIds]:
        """The ids of each text, (L,), however long; `special` tokens are added or not."""
        encodings = self._encode(texts, special=special, offsets=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """The places of each text's tokens: the first character, and the one after the last."""
        return [e.offsets for e in self._encode(texts, special=False, offsets=True)]

    def limited(self, max_tokens: int) -> "Tokenizer":
        """The same for a model that takes so many tokens."""
        other = copy(self)
        other.max_tokens = max_tokens
        return other

    def frame(self, texts: int) -> Frame:
        """The special tokens around one text, or around and between two.

        Raises `CheckpointError` unless the tokeniser puts each text in one place.
        """
        if texts not in self._frames:
            self._frames[texts] = self._find_frame(texts)
        return self._frames[texts]

    def cut(self, between: str) -> int | None:
        """The last place at which what is between two texts can be cut, so that each side has its
        tokens whatever is on the other; None if there is none."""
        if between not in self._cuts:
            if len(self._cuts) == CUTS:
                self._cuts.clear()
            self._cuts[between] = find_cut(self, between)
        return self._cuts[between]

    def locate(self, text: str, prompt: str = "") -> LocatedTokens:
        """The tokens of prompt and text. A token that reaches into the text counts to the text."""
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
        """The library's own results for each text: tokens, ids, offsets.

        Each property of them makes a new list whenever it is read.
        """
        return self._encode(texts, special=special, offsets=True)

    def name_of(self, token: int) -> str:
        """The token with that id, as the vocabulary spells it; empty if there is none."""
        return self._tokenizer.id_to_token(token) or ""

    def id_of(self, token: str) -> int | None:
        """The id of a token that the vocabulary spells so."""
        return self._tokenizer.token_to_id(token)

    def _find_frame(self, texts: int) -> Frame:
        for sample in TEXTS:
            sent = sample if texts == 1 else (sample, sample)
            (encoding,) = self._encode([sent], special=True, offsets=True)
            found = frame_of(encoding, texts)
            if found is not None:
                if texts == 2 and not found.special and self._separators is not None:
                    found = self.frame(1).paired(self._separators)
                return found if self._typed else found.without_types()
        raise CheckpointError(
            f"model `{self._model}`: {self._file}: its post-processor does not put each text of a "
            "pair in one place"
        )

    def _encode(
        self, texts: Sequence[str | tuple[str, str]], *, special: bool, offsets: bool
    ) -> list[Encoding]:
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        try:
            return encode(list(texts), add_special_tokens=special and self._special_tokens)
        except BaseException as error:
            # The library is written in Rust. A panic there, as where a pattern takes too long,
            # comes as no `Exception`, and so would pass everybody who handles those.
            if type(error).__name__ != "PanicException":
                raise
            log.exception("the tokeniser of model %s failed", self._model)
            raise EmbeddingFailed("The model's tokeniser failed on an input.") from None


def open_tokenizer(checkpoint: Checkpoint, rows: int | None) -> Tokenizer:
    """The tokeniser of a checkpoint; `rows` is how many tokens have word embeddings, if known.

    Raises `CheckpointError` that names the file, also if a token has no embedding.
    """
    return Tokenizer(
        checkpoint.card.id,
        checkpoint.folder,
        checkpoint.max_tokens,
        special_tokens=checkpoint.special_tokens,
        rows=rows,
        plain=checkpoint.card.plain_tokens,
        markers=checkpoint.late.markers if checkpoint.late else (),
    )


def _keep_whole(tokenizer: Any, markers: Sequence[str]) -> None:
    """Have a marker at the beginning of a text read as the one token that the vocabulary has for
    it, or for its first word, even where the tokeniser splits or lower-cases it elsewhere."""
    for marker in markers:
        for token in (marker, *marker.split(None, 1)[:1]):
            if tokenizer.token_to_id(token) is None:
                continue
            if tokenizer.encode(token, add_special_tokens=False).tokens != [token]:
                whole = AddedToken(token, normalized=False, special=True)
                tokenizer.add_special_tokens([whole])
            break
