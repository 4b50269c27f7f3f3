"""From what a request asks for to items of token ids.

In the order in which a text meets them: `requests` is what a request asks for, in whatever dialect
it came; `prompts` says which prompt goes before its inputs; `inputs` tokenises them, those that may
be too long by `long_text`, a piece at a time (`pieces`); `truncation` cuts or splits the ones that
are; `late_chunking` finds the tokens of chunks; and what comes of it all is an `item`.
For scores, `pairs` tokenises two texts at a time, and `frame` knows what stands around them;
`templated_pairs` does so where a decoder is asked about them.

`tokenizer` is the model's tokeniser. Work that takes long is a generator (`steps`), run on
`threads` in turn with that of other requests. `openai_tokens` and `cl100k` know OpenAI's tokens,
`explained` shows tokens to people.
"""
