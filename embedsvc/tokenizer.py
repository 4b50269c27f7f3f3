"""From text to the model's token ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from embedsvc.errors import BadRequest, CheckpointError
from embedsvc.ops.base import TokenIds


class Tokenizer:
    """The checkpoint's own tokeniser, with nothing cut and nothing padded. Use it on any thread."""

    def __init__(self, model: str, folder: Path, max_tokens: int) -> None:
        file = folder / "tokenizer.json"
        try:
            self._tokenizer = FastTokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise CheckpointError(f"model `{model}`: {file}: {error}") from None
        # The file may carry the settings of the model's training.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.max_tokens = max_tokens

    def encode(
        self, texts: Sequence[str], *, first: int = 0, of: int | None = None
    ) -> list[TokenIds]:
        """Ids of each text, special tokens included, (L,) each.

        Raises `BadRequest` that names the first text with more than `max_tokens`, as it is numbered
        in a request `of` so many, from whose `first` the texts are.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        for index, tokens in enumerate(ids, first):
            if len(tokens) > self.max_tokens:
                name = "input" if (of or len(texts)) == 1 else f"input[{index}]"
                raise BadRequest(
                    f"Invalid '{name}': maximum context length is {self.max_tokens} tokens, "
                    f"but this input has {len(tokens)}."
                )
        return ids
