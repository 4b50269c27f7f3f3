"""How a checkpoint is going to be computed: what is known before its weights are read."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.steps import Dense, LayerNorm
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError
from embedsvc.inference.heads import heads_of
from embedsvc.inference.heads.masked_lm import size_of
from embedsvc.inference.models import (
    EXCEED_FLOAT16,
    LOOK_TYPES_UP,
    Architecture,
    fallback,
    find_architecture,
    nearest_kind,
    read_config,
    table_rows,
)
from embedsvc.inference.ops.base import Inputs
from embedsvc.wording.msgspec_errors import plain_types

LAYERS_AT_ONCE = 32
"""How many outputs of the widest layer a pass has in memory at once, at most. It keeps few of them,
but MLX allocates those of a dozen operations ahead."""
WEIGHTS_ON_MLX: dict[Dtype, float] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 2}
LAYERS_ON_CPU: dict[Dtype, float] = {"float32": 4, "float16": 4, "bfloat16": 2, "int8": 1 + 4 / 64}
TABLES_ON_CPU: dict[Dtype, float] = {"float32": 4, "float16": 4, "bfloat16": 2, "int8": 2}
"""Bytes of a weight: of all on MLX; on a CPU of a linear layer (in int8 with scales), and of a
table of embeddings. Whatever else there is has 4 on a CPU, also `EXPERTS`."""
FEWEST_TOKENS = 2
"""Of a text, most often: each text has a row as wide as the vocabulary where vectors are sparse."""
Backend = Literal["mlx", "native", "numpy"]
EXPERTS = ".experts."
"""A part of the names of the weights that a router chooses from."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checkpoint, and how it is computed. Its files agree, as far as can be known without reading
    the weights."""

    checkpoint: Checkpoint
    architecture: Architecture
    config: Any
    """The `Config` of the architecture."""
    dtype: Dtype
    """The type of numbers that it is computed in."""
    heads: tuple[str, ...]
    """The names of its heads, the checkpoint's own first."""
    rows: int | None
    """How many tokens have word embeddings; None where only mlx-embeddings knows."""
    size: int
    """Bytes of memory that the weights take, and the tables that are made beside them."""
    token_size: int
    """Bytes of memory that a pass takes for each of its tokens."""
    stored: int
    """Bytes of all tensors in the files."""

    @property
    def digest(self) -> str:
        """A digest, in hexadecimal, of all that the speed of passes depends on: not the weights,
        but their shapes and type, and how they are quantised."""
        parts = (self.checkpoint.config, self.dtype, self.heads, self.size)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def inputs(self) -> Inputs:
        """What the pass is prepared for."""
        types = getattr(self.config, "type_vocab_size", 1)
        pairs = self.architecture in LOOK_TYPES_UP and "scores" in self.heads and types > 1
        return Inputs(self.checkpoint.max_tokens, pairs)


def make_plan(checkpoint: Checkpoint, dtype: Dtype, *, backend: Backend) -> Plan:
    """How a checkpoint is computed in that dtype by a backend.

    Raises `CheckpointError` if the checkpoint cannot be computed, or its files do not agree.
    """
    architecture, config = find_pass(checkpoint, dtype)
    heads = heads_of(checkpoint)
    tensors = checkpoint.tensors()
    table_numbers = getattr(config, "table_numbers", None)
    return Plan(
        checkpoint=checkpoint,
        architecture=architecture,
        config=config,
        dtype=dtype,
        heads=heads,
        rows=table_rows(architecture, config, tensors),
        size=_weight_bytes(tensors, dtype, architecture, backend)
        + _module_bytes(checkpoint)
        + (4 * math.prod(size_of(checkpoint)) if checkpoint.task == "sparse" else 0)
        + (4 * table_numbers(checkpoint.max_tokens) if table_numbers else 0),
        token_size=LAYERS_AT_ONCE
        * _widest(tensors)
        * (2 if backend == "mlx" and dtype != "float32" else 4)
        + (4 * size_of(checkpoint)[1] // FEWEST_TOKENS if checkpoint.task == "sparse" else 0),
        stored=sum(entry.nbytes for entry in tensors.entries().values()),
    )


class Dtypes(Protocol):
    """The types of numbers that a backend computes in."""

    @property
    def dtypes(self) -> tuple[Dtype, ...]: ...

    @property
    def dtype(self) -> Dtype:
        """The default."""
        ...


def choose_dtype(checkpoint: Checkpoint, backend: Dtypes, asked: Dtype | None = None) -> Dtype:
    """The type of numbers that a checkpoint is computed in on a backend.

    It is what the card asks for, else what the server was `asked` for, if the backend has it.
    Without either a GPU has 16 bits, and they are bfloat16 where float16 may not suffice. Raises
    `CheckpointError`.
    """
    of_card, default = checkpoint.card.dtype, backend.dtype
    chosen = of_card if of_card in backend.dtypes else asked
    if chosen is not None:
        return chosen
    exceeds = default == "float16" and (
        checkpoint.model_type in EXCEED_FLOAT16 or checkpoint.is_bfloat16()
    )
    return "bfloat16" if exceeds else default


def find_pass(checkpoint: Checkpoint, dtype: Dtype) -> tuple[Architecture, Any]:
    """The architecture that computes a checkpoint in that dtype, and its `Config`.

    Raises `CheckpointError` if there is none, or it does not support what the checkpoint asks for.
    """
    model, kind = checkpoint.card.id, checkpoint.model_type
    architecture: Architecture | None = find_architecture(kind, checkpoint.config)
    if dtype == "float16" and kind in EXCEED_FLOAT16:
        raise CheckpointError(
            f'model `{model}`: {kind} exceeds float16; give its card `dtype = "bfloat16"`'
        )
    file = checkpoint.folder / "config.json"
    try:
        if architecture is None:
            fallback.check(kind, nearest_kind(kind, checkpoint.config))
            architecture = fallback
        config = read_config(architecture, checkpoint.config)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"model `{model}`: {file}: {plain_types(str(error))}") from None
    except CheckpointError as error:
        raise CheckpointError(f"model `{model}`: {file}: {error}") from None
    longest = getattr(config, "longest", checkpoint.max_tokens)
    if checkpoint.max_tokens > longest:
        raise CheckpointError(
            f"model `{model}`: it takes {longest} tokens, not {checkpoint.max_tokens}; "
            f"give its card `max_tokens = {longest}`"
        )
    return architecture, config


def _weight_bytes(
    tensors: Tensors, dtype: Dtype, architecture: Architecture, backend: Backend
) -> int:
    """Bytes of memory that the weights take."""
    expanded = _unlike(tensors)
    for part in getattr(architecture, "EXPANDED", ()):
        expanded |= {name for name in tensors.entries() if part in name}
    size = 0.0
    for name, entry in tensors.entries().items():
        count = math.prod(entry.shape)
        quantized = entry.dtype in ("U32", "U8") and name not in expanded
        if backend == "mlx" and quantized:
            size += entry.nbytes
            continue
        if backend == "native" and quantized and _stays_quantized(tensors, name, dtype):
            bits = tensors.fewest_bits(name)
            size += entry.nbytes * (4 if bits <= 4 else 8) / bits
            continue
        if entry.dtype == "U32":
            count = count * 32 // tensors.fewest_bits(name)
        if backend == "mlx":
            size += count * WEIGHTS_ON_MLX[dtype]
        elif len(entry.shape) == 2 and EXPERTS not in name:
            size += count * (TABLES_ON_CPU if "embed" in name else LAYERS_ON_CPU)[dtype]
        else:
            size += count * 4
    return math.ceil(size)


def _stays_quantized(tensors: Tensors, name: str, dtype: Dtype) -> bool:
    """Whether the kernels in C keep a quantised matrix as it is: in the mode `affine`, tables, and
    layers in float32."""
    affine = f"{name.removesuffix('.weight')}.biases" in tensors.entries()
    return affine and (dtype == "float32" or "embed" in name)


def _unlike(tensors: Tensors) -> set[str]:
    """The matrices of layers that stand beside others, and are not all quantised alike. They are
    expanded where they are computed as one: query, key and value, or gate and up."""
    entries = tensors.entries()
    beside: dict[str, dict[str, object]] = {}
    for name, entry in entries.items():
        stem = name.removesuffix(".weight")
        scales = entries.get(f"{stem}.scales")
        if stem != name and len(entry.shape) == 2 and "embed" not in name:
            groups = scales.shape[-1:] if scales else ()
            how = scales and (scales.dtype, entry.shape[1] / max((1, *groups)))
            said = repr(tensors.quantization.layers.get(stem))
            beside.setdefault(stem.rpartition(".")[0], {})[name] = (how, said)
    return {name for ways in beside.values() if len({*ways.values()}) > 1 for name in ways}


def _widest(tensors: Tensors) -> int:
    """How many numbers the widest layer takes in for each token."""
    widths = [1]
    for name, entry in tensors.entries().items():
        if len(entry.shape) > 1:
            packed = 32 // tensors.fewest_bits(name) if entry.dtype == "U32" else 1
            widths.append(entry.shape[-1] * packed)
    return max(widths)


def _module_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of the weights of the modules after pooling, which are held in float32."""
    size = 0
    for step in checkpoint.steps:
        if isinstance(step, Dense) and not step.own_folder:
            size += 4 * step.inputs * step.outputs
        elif isinstance(step, Dense | LayerNorm):
            entries = Tensors(checkpoint.card.id, step.folder).entries().values()
            size += sum(4 * math.prod(entry.shape) for entry in entries)
    return size
