"""How much a client, a file or a hub may ask for, where no setting says so: all in one place.

A bound is checked before work or memory is spent on what it bounds. What operators may change is in
`settings`.
"""

# A request's body

ENCODINGS = 3
"""How many encodings a body may have, one inside another."""

MEMBERS = 4096
"""How many members of gzip, or frames of zstd, a body may consist of."""

ZSTD_WINDOW_LOG = 23
"""The logarithm of zstd's largest window: 8 MiB, the most that RFC 9659 allows."""

JSON_VALUES = 100_000
"""How many values the JSON of a request may have, beside as many token ids as it may have."""

JSON_CONTAINERS = 65_536
"""How many of these values may be lists and objects, which take more memory and time than their
elements."""

BODIES_IN_FLIGHT = 8
"""All requests in flight may have bodies that are together as large as so many of the largest."""

# What a request asks for

CHOICE = 200
"""Characters of a name that chooses something, such as a prompt or a kind of input."""

PROMPT_CHARACTERS = 16_384
"""Characters of a prompt, which goes before every input of a request."""

TEXT_CHARACTERS = 1 << 20
"""Characters of a text, or token ids, that are looked at to find out whether a model can take it. A
text of as many tokens as OpenAI takes has fewer."""

REQUEST_CHARACTERS = 16 << 20
"""Characters that are looked at in all texts of a request together."""

TOKEN_CHARACTERS = 16
"""Characters that are looked at for each token that a text or a request may have, where that is
more than the two bounds above: some texts are mostly white space."""

CHUNKS = 32_768
"""Chunks of all texts of a request, for late chunking."""

CHUNK_TOKENS = 2_000_000
"""Tokens of all these chunks. A token in several chunks counts in each."""

DIMENSIONS = 65_536
"""Components of a vector that a request may ask for, whatever the model."""

SKIPPED_WORDS = 1000
"""Tokens without vectors that the files of a late-interaction model may name."""

RANK_FIELDS = 32
"""Fields of documents that are to be ranked, whose names a request may give."""

VECTOR_BYTES = 128 << 20
"""Bytes of the vectors in one answer, as they are written. OpenAI's 2048 inputs fit, as numbers,
with the 4096 dimensions of the largest models."""

ANSWERS_IN_FLIGHT = 240 << 20
"""Bytes of all answers that are being written or wait to be read, their vectors included."""

# Models by name

MODEL_NAME = 200
"""Characters of a model's name, as a client sends it."""

NAMES_COMPARED = 1000
"""How many known names an unknown one is compared with, to suggest the nearest."""

AD_HOC_MODELS = 64
"""Models without a card that a server remembers. Those that failed to load are forgotten first."""

AD_HOC_SPELLINGS = 8
"""Ways to write one such model's name that a server remembers."""

METRIC_MODELS = 1000
"""Models whose requests are timed by their name. Those that come later are timed together."""

# A checkpoint's files

CHECKPOINT_JSON = 4 << 20
"""Bytes of a checkpoint's file of settings, such as config.json. The largest have about 1 MiB."""

README = 64 << 10
"""Bytes at the beginning of a README.md that are read, for what a model was converted from."""

TENSOR_INDEX = 16 << 20
"""Bytes of the index that says which shard has which tensor."""

TENSOR_HEADER = 8 << 20
"""Bytes of the header of a safetensors file. A model of a thousand tensors has about 0.1 MiB."""

ZIP_DIRECTORY = 8 << 20
"""Bytes of the directory of a file of torch's, which is a zip archive. A tensor takes some 100."""

TORCH_PICKLE = 8 << 20
"""Bytes of the pickle in it, which has the names and shapes of its tensors."""

TORCH_STEPS = 500_000
"""Opcodes of that pickle. A tensor takes some 40, with what is noted of the module that has it."""

TORCH_GAPS = 256 << 20
"""Bytes of a file of torch's between the numbers of a tensor that is a view of a larger one. They
are read with it, and no plan of the memory has them."""

TOKENIZER_FILE = 64 << 20
"""Bytes of a tokeniser's vocabulary or of tokenizer.json. Those of 256 000 tokens have 34 MiB."""

TEMPLATE = 32_768
"""Characters of a chat template that is read for how a query and a document are put together."""

MODULES = 32
"""Modules in a chain of sentence-transformers."""

LAYERS = 1000
"""Layers of a model, and entries of a list that has one for each."""

VECTOR = 1 << 20
"""Dimensions of a vector, between a model's modules too."""

# A hub

HUB_INFO_BYTES = 16 << 20
"""Bytes of what a hub says about a repository."""

HUB_FILES = 1000
"""Files of a repository that are downloaded."""

HUB_BYTES = 512 << 30
"""Bytes of all these files."""

HUB_UNSTATED_BYTES = 16 << 30
"""Bytes of a file whose size the hub does not state."""

# Other files and servers

TEXT_FILE_BYTES = 16 << 20
"""Bytes of a file that a person writes and that is read as a whole: cards, keys, an environment."""

ANSWER_BYTES = 512 << 20
"""Bytes, unpacked, of one answer of a server that `embedsvc embed --url` asks."""
