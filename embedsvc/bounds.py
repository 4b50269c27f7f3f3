"""How much a client, a file or a hub may ask for, where no setting says so: all in one place.

A bound is checked before work or memory is spent on what it bounds. What operators may change is in
`settings`.
"""

# A request's body

ENCODINGS = 3
"""Encodings of a body, one in another."""

MEMBERS = 4096
"""Members of gzip, or frames of zstd, that a body is made of."""

ZSTD_WINDOW_LOG = 23
"""The largest window of zstd, 8 MiB, which RFC 9659 allows."""

JSON_VALUES = 100_000
"""Values in the JSON of a request, besides as many token ids as it may have."""

JSON_CONTAINERS = 65_536
"""Lists and objects among them, which take more memory and time than what is in them."""

BODIES_IN_FLIGHT = 8
"""Bodies of the longest size that all requests in flight may have together."""

# What a request asks for

CHOICE = 200
"""Characters of a name that chooses something: a prompt, a kind of input."""

PROMPT_CHARACTERS = 16_384
"""Characters of a prompt, which goes before every input of a request."""

TEXT_CHARACTERS = 1 << 20
"""Characters of a text, or token ids, that are looked at to find out whether a model can take it;
it is that a text of as many tokens as OpenAI takes has less."""

REQUEST_CHARACTERS = 16 << 20
"""Of all texts of a request, those that are looked at."""

TOKEN_CHARACTERS = 16
"""For each token that may be had there may be that many characters, if that is more than the two
above: some text is white space."""

CHUNKS = 32_768
"""Chunks of all texts of a request, for late chunking."""

CHUNK_TOKENS = 2_000_000
"""Tokens of all these chunks; one that is in several chunks counts in each."""

DIMENSIONS = 65_536
"""Components of a vector that may be asked for, whatever the model."""

VECTOR_BYTES = 128 << 20
"""Of the vectors in one answer, as they are written: OpenAI's 2048 inputs have room with the 4096
dimensions of the largest models, in numbers."""

ANSWERS_IN_FLIGHT = 240 << 20
"""Bytes of the answers, and of their vectors, that are being written or wait to be read."""

# Models by name

MODEL_NAME = 200
"""Characters of a model's name, as a client sends it."""

NAMES_COMPARED = 1000
"""Names that one which is nobody's is compared with, to suggest the nearest."""

AD_HOC_MODELS = 64
"""Models without a card that a server remembers; those that failed are forgotten first."""

AD_HOC_SPELLINGS = 8
"""Ways to write one such model's name that are remembered."""

METRIC_MODELS = 1000
"""Models whose requests are timed by their name; there may be more in turn, in a long life."""

# A checkpoint's files

CHECKPOINT_JSON = 4 << 20
"""Bytes of a checkpoint's file of settings, such as config.json; the largest known have about 1."""

TENSOR_INDEX = 16 << 20
"""Bytes of the index that says which shard has which tensor."""

TENSOR_HEADER = 8 << 20
"""Bytes of the header of a safetensors file; a model of a thousand tensors has about 0.1 MiB."""

TOKENIZER_FILE = 64 << 20
"""Bytes of a tokeniser's vocabulary or of tokenizer.json; those of 256 000 tokens have 34."""

MODULES = 32
"""Modules of a chain of sentence-transformers."""

LAYERS = 1000
"""Layers of a model, and modules of a list that has one for each."""

VECTOR = 1 << 20
"""Dimensions of a vector, on its way through a model's modules too."""

# A hub

HUB_INFO_BYTES = 16 << 20
"""Of what a hub tells about a repository."""

HUB_FILES = 1000
"""Of a repository, those that are downloaded."""

HUB_BYTES = 512 << 30
"""Of them all."""

HUB_UNSTATED_BYTES = 16 << 30
"""Of a file whose size the hub does not say."""

# Other files and servers

TEXT_FILE_BYTES = 16 << 20
"""Of a file that a person writes and that is read as a whole: cards, keys, an environment."""

ANSWER_BYTES = 512 << 20
"""Of one answer of a server that `embedsvc embed --url` asks, unpacked."""
