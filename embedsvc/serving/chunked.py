"""The inputs of a request for late chunking, and the chunks of each."""

from collections.abc import Sequence

from embedsvc.errors import TooManyTokens
from embedsvc.texts.inputs import Input, InputOptions, count_characters, tokenize_chunks
from embedsvc.texts.item import Item
from embedsvc.texts.late_chunking import Chunk, Tally
from embedsvc.texts.requests import Chunking, Offsets
from embedsvc.texts.threads import Tokenizing
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import more_than


async def find_chunks(
    tokenizer: Tokenizer,
    tokenizing: Tokenizing,
    inputs: Sequence[Input],
    options: InputOptions,
    chunking: Chunking | Sequence[Sequence[Offsets]],
    tally: Tally,
    most_tokens: int,
) -> tuple[list[Item], list[list[Chunk]]]:
    """The items of inputs, with their spans, and the chunks that those are.

    `chunking` is one rule for all inputs, or the chunks of each. Raises `RequestError`, also where
    all together have more chunks than `tally` takes, or more than `most_tokens`.
    """
    items: list[Item] = []
    chunks: list[list[Chunk]] = []
    tokens = 0
    for index, value in enumerate(inputs):
        each = chunking if isinstance(chunking, Chunking) else chunking[index]
        work = tokenize_chunks(tokenizer, value, options, each, index=index, of=len(inputs))
        item, its_chunks = await tokenizing.run(work, count_characters([value], options))
        tally.add(item)
        items.append(item)
        chunks.append(its_chunks)
        tokens += len(item)
        if tokens > most_tokens:
            last = index == len(inputs) - 1
            raise TooManyTokens(tokens if last else more_than(tokens), most_tokens)
    return items, chunks
