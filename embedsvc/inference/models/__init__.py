"""The architectures: one file each, to be read beside its paper.

To add one, write its file and its line here. What an architecture shares with an older one it takes
from that one's file (`bert.py`), and decoders from `decoder.py`.

`up_gate` and `gate_up` are one linear layer made of two, whose outputs lie side by side; the name
says in which order, which is the checkpoint's own (`jina_bert.py` has an exception).
"""

from difflib import get_close_matches
from typing import Any, Protocol

import msgspec

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import (
    albert,
    bert,
    deberta_v2,
    distilbert,
    electra,
    embedding_gemma2_text,
    gemma3_text,
    gte,
    jina_bert,
    jina_embeddings_v3,
    llama,
    modernbert,
    mpnet,
    nomic_bert,
    roberta,
    static,
)
from embedsvc.inference.ops.base import Array, Batch, Inputs, Ops


class Architecture(Protocol):
    """What a file in this folder offers."""

    @property
    def UNUSED(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """How names of tensors begin that checkpoints carry and the hidden states do not need."""
        ...

    Config: type[Any]
    """The fields of config.json that the pass depends on: a msgspec struct. A file that holds
    quantised tensors as floats on each backend lists parts of their names in `EXPANDED`.

    It may have `longest`, the most tokens of one text that the pass can take; `rows`, the rows of
    the table of word embeddings; and `table_numbers(longest)`, how many numbers `prepare` puts into
    tables of its own making.
    """

    def prepare(self, ops: Ops, tensors: Tensors, config: Any, inputs: Inputs) -> Any:
        """Take the tensors out of the checkpoint and put the weights on the device.

        Tables by position are made for texts of up to `inputs.longest` tokens. Raises
        `CheckpointError` that names a tensor which is missing or has the wrong shape.
        """
        ...

    def forward(self, ops: Ops, weights: Any, batch: Batch) -> Array:
        """Hidden states (N, D), a row for each token; where `batch.read` is one row of each text,
        those of that row (B, D) (see `last_layer.py`).

        The function is traced, so it must not depend on the values of arrays.
        """
        ...


ARCHITECTURES: dict[str, Architecture] = {
    "albert": albert,
    "bert": bert,
    "bidirectional_pplx_qwen3": llama,
    "camembert": roberta,
    "deberta-v2": deberta_v2,
    "distilbert": distilbert,
    "electra": electra,
    "embedding_gemma2_text": embedding_gemma2_text,
    "eurobert": llama,
    "gemma3_text": gemma3_text,
    "gte": gte,
    "jina_bert": jina_bert,
    "jina_embeddings_v3": jina_embeddings_v3,
    "llama": llama,
    "llama_bidirec": llama,
    "ministral3": llama,
    "mistral": llama,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "new": gte,
    "nomic_bert": nomic_bert,
    "qwen2": llama,
    "qwen3": llama,
    "roberta": roberta,
    "static": static,
    "xlm-roberta": roberta,
}
"""By `model_type` in config.json."""
LOOK_TYPES_UP: tuple[Architecture, ...] = (
    albert,
    bert,
    deberta_v2,
    electra,
    gte,
    jina_bert,
    jina_embeddings_v3,
    roberta,
)
"""The architectures whose passes look up the types of tokens, where `Inputs.pairs` asks for it."""
EXCEED_FLOAT16 = ("embedding_gemma2_text", "gemma3_text")
"""The architectures whose activations exceed the range of float16."""


def find_architecture(model_type: str, config: dict[str, Any]) -> Architecture | None:
    """The architecture of a checkpoint with that config.json; None if there is no file for it."""
    if model_type == "bert" and config.get("position_embedding_type") == "alibi":
        return jina_bert  # its checkpoints call themselves BERT
    return ARCHITECTURES.get(model_type)


def nearest_kind(model_type: str, config: dict[str, Any]) -> str:
    """The supported `model_type` that is most like one that is not: by its name, or else by what
    its config.json speaks of.

    >>> nearest_kind("roberta-prelayernorm", {})
    'roberta'
    >>> nearest_kind("olmo9", {"rms_norm_eps": 1e-6})
    'qwen3'
    """
    named = get_close_matches(model_type.replace("_", "-"), ARCHITECTURES, n=1, cutoff=0.5)
    inside = [kind for kind in ARCHITECTURES if kind in model_type and len(kind) > 3]
    return next(iter((*sorted(inside, key=len, reverse=True), *named)), None) or (
        "qwen3" if "rms_norm_eps" in config else "bert"
    )


def read_config(architecture: Architecture, config: dict[str, Any]) -> Any:
    """The architecture's `Config`, filled from a config.json.

    Raises `msgspec.ValidationError` if a field is missing, or asks for what is not supported.
    """
    return msgspec.convert(config, architecture.Config)


def table_rows(architecture: Architecture, config: Any, tensors: Tensors) -> int | None:
    """How many tokens have word embeddings; None where only mlx-embeddings knows.

    Raises `CheckpointError`.
    """
    if architecture is static:
        return static.rows(tensors)
    return getattr(config, "rows", None)
