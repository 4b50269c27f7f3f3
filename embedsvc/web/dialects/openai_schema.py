"""The wire format of OpenAI's embeddings API: what is sent and what is answered."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from embedsvc.bounds import CHUNKS, PROMPT_CHARACTERS
from embedsvc.catalog.cards import Task, Truncate
from embedsvc.texts.requests import (
    EMBEDDING_TYPES,
    Choice,
    Chunking,
    ComponentType,
    Dimensions,
    EmbeddingType,
    EncodingFormat,
    MaxActiveDims,
    MinWeight,
    ModelName,
)

Chunks = Annotated[
    list[Annotated[list[int | list[int]], Meta(max_length=CHUNKS)]],
    Meta(max_length=CHUNKS, description="Late chunking: [start, end] of each, in characters."),
]


class DeploymentBody(msgspec.Struct, kw_only=True):
    """The body of a request whose path names the model.

    Unknown fields are ignored, as `user` is. A field that is null counts as absent.
    """

    input: Annotated[
        str | list[str | int | list[int]],
        Meta(description="A text, or texts; or the same in token ids of cl100k_base."),
    ]
    encoding_format: EncodingFormat | None = None
    dimensions: Dimensions | None = None
    input_type: Annotated[Choice | None, Meta(description="query, document, passage, ...")] = None
    prompt_name: Annotated[Choice | None, Meta(description="One of the model's prompts.")] = None
    prompt: Annotated[
        str | None,
        Meta(
            description="A text to put before each input.",
            extra_json_schema={"maxLength": PROMPT_CHARACTERS},
        ),
    ] = None
    truncate: Annotated[
        Truncate | bool | None, Meta(description="What to do with inputs that are too long.")
    ] = None
    chunks: Chunks | None = None
    chunking: Chunking | None = None
    output_dtype: ComponentType | None = None
    embedding_types: (
        Annotated[list[EmbeddingType], Meta(max_length=len(EMBEDDING_TYPES))] | None
    ) = None
    max_active_dims: MaxActiveDims = None
    min_weight: MinWeight = None


class EmbeddingBody(DeploymentBody, kw_only=True):
    """The body of a request that names the model itself."""

    model: ModelName


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class ChunkRow(msgspec.Struct):
    """With late chunking, the part of an input that a row is the vector of."""

    input: int
    start: int
    end: int
    tokens: int


class SparseEmbedding(msgspec.Struct):
    """The tokens that count for a text, by id in ascending order, and how much each does."""

    indices: list[int]
    values: list[float]
    tokens: list[str]


class EmbeddingRow(msgspec.Struct):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str | dict[str, list[float] | str]
    chunk: ChunkRow | msgspec.UnsetType = msgspec.UNSET
    sparse_embedding: SparseEmbedding | msgspec.UnsetType = msgspec.UNSET


class EmbeddingAnswer(msgspec.Struct):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: Usage


CAPABILITIES: dict[Task, str] = {
    "embed": "embedding",
    "rerank": "rerank",
    "classify": "classification",
    "sparse": "sparse_embedding",
}
"""What the lists of models call what a model gives."""


class ModelsQuery(msgspec.Struct):
    """`downloaded` leaves out the models whose files are not here."""

    status: Literal["downloaded"] | msgspec.UnsetType = msgspec.UNSET


class Model(msgspec.Struct, kw_only=True):
    """A name that a request may have, and the model that it means.

    Fields from `hugging_face_id` on are as exo adds them, for Open WebUI among others. What is not
    known before a model was looked at is 0 or empty.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    """The id of the model's card: this name, or the one that this is another name for."""
    state: str
    tasks: list[Task] = msgspec.field(default_factory=list[Task])  # older servers do not say it
    """What it is for. One that embeds can be asked to rerank, too: it gives cosines."""
    dimensions: int | None
    max_tokens: int | None
    architecture: str | None
    pooling: str | None
    pooling_source: str | None
    """What says how to pool; null before the model was loaded, and for one that gives no
    vectors."""
    dtype: str | None
    """The type of numbers that it is computed in."""
    prompts: dict[str, str]
    fingerprint: str | None
    hugging_face_id: str = ""
    """The name by which exo's clients ask for the model to be loaded: its card's id."""
    name: str = ""
    description: str = ""
    context_length: int = 0
    tags: list[str] = []
    storage_size_megabytes: int = 0
    supports_tensor: bool = False
    is_custom: bool = False
    """Whether a client added it, so that it has no card in the file."""
    family: str = ""
    quantization: str = ""
    base_model: str = ""
    capabilities: list[str] = []
    reasoning_dialect: Literal["none"] = "none"


class ModelList(msgspec.Struct):
    object: Literal["list"]
    data: list[Model]
