"""Writes a checkpoint in another precision: rounded to a dtype, or quantised as MLX does it.

The new folder is laid out as on the Hub and needs no card: the files of sentence-transformers are
copied, and what the card says is added to them.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import FloatDtype
from embedsvc.checkpoints.adapter import CONFIG as ADAPTER_CONFIG
from embedsvc.checkpoints.adapter import WEIGHTS as ADAPTER_WEIGHTS
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.families import FROM_CARD, FROM_MODULES
from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.late_interaction import PROJECTION
from embedsvc.checkpoints.modules import ROUND_TANH
from embedsvc.checkpoints.pooling import BOOLEANS, NAMES
from embedsvc.checkpoints.quantization import FLOAT, Packing
from embedsvc.checkpoints.quantized import BITS, FLOAT_MODES, GROUP_SIZES, Mode, quantize
from embedsvc.checkpoints.steps import Dense, LayerNorm, Normalize, RoundTanh, Truncate
from embedsvc.checkpoints.tensor_files import (
    DTYPES,
    INDEX,
    TORCH_INDEX,
    WEIGHTS,
    Entry,
    weight_files,
)
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.checkpoints.transformer_settings import read_settings
from embedsvc.errors import CheckpointError

CODES: dict[FloatDtype, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Names of types in safetensors files."""
WHOLE = ("position", "token_type", "router", "pooler", "norm", "classifier", "head.dense", "score")
"""Parts of the names of matrices that are not quantised, since they are small and worth their
precision: the last layers of rerankers among them."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision that weights are converted to."""

    dtype: FloatDtype | None = None
    """The dtype of floats. None: as they are stored, or float16 beside quantised matrices."""
    bits: int | None = None
    """The bits of each weight of a matrix; None: those of the mode, which for `affine` means that
    matrices are not quantised."""
    group_size: int | None = None
    """The weights that have a scale in common; None: those of the mode, 64 for `affine`."""
    mode: Mode = "affine"

    def packing(self) -> Packing | None:
        """How matrices are quantised, None if they are not. Raises `CheckpointError` that names
        what is not supported."""
        if self.mode != "affine":
            own = FLOAT_MODES[self.mode]
            packing = Packing(self.mode, self.bits or own.bits, self.group_size or own.group_size)
            if packing not in FLOAT:
                raise CheckpointError(
                    f"{self.mode} has {own.bits} bits in groups of {own.group_size}, "
                    f"not {packing.bits} in groups of {packing.group_size}"
                )
            return packing
        group_size = self.group_size or 64
        if self.bits is not None and self.bits not in BITS:
            raise CheckpointError(f"weights of {self.bits} bits are not supported, only {BITS}")
        if group_size not in GROUP_SIZES:
            raise CheckpointError(f"groups of {group_size} are not supported: {GROUP_SIZES}")
        if self.dtype is None and self.bits is None:
            raise CheckpointError("say what to convert to: a dtype, a number of bits, or a mode")
        return Packing("affine", self.bits, group_size) if self.bits else None


def convert(checkpoint: Checkpoint, out: Path, precision: Precision) -> None:
    """Write the checkpoint in that precision to the folder `out`, which must not exist.

    Raises `CheckpointError` if it does, or the model cannot be converted to that precision.
    """
    packing = precision.packing()
    if out.exists():
        raise CheckpointError(f"{out}: is there already")
    if packing and checkpoint.model_type == "static":
        raise CheckpointError(
            f"model `{checkpoint.card.id}`: static embeddings cannot be quantised, only rounded"
        )
    if checkpoint.scoring is not None and checkpoint.pooling_source == FROM_CARD:
        raise checkpoint.error("the files of a reranker cannot say its card's `pooling`")
    if not checkpoint.folder.is_relative_to(checkpoint.root):
        raise checkpoint.error("is the base of an adapter: give it a card with that `adapter`")
    model = checkpoint.card.id
    weights = {file.name for file in weight_files(model, checkpoint.folder)} | {INDEX, TORCH_INDEX}
    modules = {step.folder for step in checkpoint.steps if isinstance(step, Dense | LayerNorm)}

    def ignored(folder: str, names: list[str]) -> set[str]:
        skipped = {name for name in names if name.startswith(".")}
        other, adapter = ("onnx", "openvino"), (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
        skipped |= {n for n in names if n in (*other, *adapter)}  # an adapter is merged
        skipped |= {n for n in names if n.endswith((".bin", ".npz", ".onnx", ".pt"))}
        if Path(folder) == checkpoint.folder:
            return skipped | weights
        if Path(folder) in modules:  # their weights are kept as they are
            return skipped - {file.name for file in weight_files(model, Path(folder))}
        return skipped

    try:
        shutil.copytree(checkpoint.root, out, ignore=ignored)
    except (OSError, shutil.Error) as error:
        raise CheckpointError(f"{checkpoint.root}: cannot be copied to {out}: {error}") from None
    inside = out / checkpoint.folder.relative_to(checkpoint.root)
    _write_weights(checkpoint.tensors(), inside / WEIGHTS, precision.dtype, packing)
    _write_config(checkpoint, inside, precision.dtype, packing)
    _complete(checkpoint, out, inside)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A tensor to be written; it is quantised if it has a `packing`."""

    name: str
    stored: str
    code: str
    shape: tuple[int, ...]
    packing: Packing | None

    def parts(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of what is stored: itself, or packed values, scales and, in the mode
        `affine`, biases."""
        if self.packing is None:
            return [(self.stored, self.code, self.shape)]
        stem = self.stored.removesuffix(".weight")
        rows, columns = self.shape
        groups = (rows, columns // self.packing.group_size)
        packed = (self.stored, "U32", (rows, columns * self.packing.bits // 32))
        if self.packing.mode != "affine":
            return [packed, (f"{stem}.scales", "U8", groups)]
        return [
            packed,
            (f"{stem}.scales", self.code, groups),
            (f"{stem}.biases", self.code, groups),
        ]

    def values(self, tensors: Tensors) -> list[NDArray[Any]]:
        """The arrays that are stored, in the order of `parts`."""
        if self.code not in CODES.values():
            return [tensors.take_stored(self.name)]
        value = tensors.take(self.name, *self.shape)
        if self.packing is None:
            return [value]
        mode, bits, group_size = self.packing
        quantized = quantize(value, group_size, bits, mode)
        parts = (quantized.packed, quantized.scales, quantized.biases)
        return [part for part in parts if part is not None]


def _plan(name: str, entry: Entry, dtype: FloatDtype | None, packing: Packing | None) -> _Planned:
    """How a tensor is written. Raises `CheckpointError` if it is quantised already."""
    if entry.dtype == "U32":
        raise CheckpointError(f"tensor `{name}` is quantised already; convert the original")
    code = entry.dtype
    if code.startswith("F") or code == "BF16":
        code = CODES[dtype] if dtype else "F16" if packing else code
    quantized = (
        packing is not None
        and len(entry.shape) == 2
        and entry.shape[1] % packing.group_size == 0
        and name.endswith(".weight")
        and not any(part in name for part in WHOLE)
        and name != PROJECTION
        and code in CODES.values()
    )
    return _Planned(name, entry.stored, code, entry.shape, packing if quantized else None)


def _write_weights(
    tensors: Tensors, file: Path, dtype: FloatDtype | None, packing: Packing | None
) -> None:
    """Write a safetensors file tensor by tensor, so that only one is in memory at a time."""
    planned = [_plan(name, entry, dtype, packing) for name, entry in tensors.entries().items()]
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for tensor in planned:
        for name, code, shape in tensor.parts():
            end = offset + math.prod(shape) * np.dtype(DTYPES[code]).itemsize
            header[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, end]}
            offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for tensor in planned:
            for (_, code, _), value in zip(tensor.parts(), tensor.values(tensors), strict=True):
                stream.write(_encode(value, code))


def _encode(value: NDArray[Any], code: str) -> bytes:
    """An array as it is stored in that type.

    >>> _encode(np.array([1.0, -2.0], np.float32), "BF16").hex()
    '803f00c0'
    """
    if code == "BF16":  # the upper half of a float32, rounded to the nearest even one
        whole = np.ascontiguousarray(value, np.float32).view(np.uint32)
        value = (whole + (((whole >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return value.astype(DTYPES[code]).tobytes()


def _write_config(
    checkpoint: Checkpoint, inside: Path, dtype: FloatDtype | None, packing: Packing | None
) -> None:
    """Have config.json state the new precision."""
    config = Files(checkpoint.card.id, inside).read("config.json")
    config.pop("quantization", None)
    if packing:
        said = {"group_size": packing.group_size, "bits": packing.bits}
        mode = {} if packing.mode == "affine" else {"mode": packing.mode}
        config["quantization"] = {**said, **mode}
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = dtype or ("float16" if packing else config[key])
    _write(inside / "config.json", config)


def _complete(checkpoint: Checkpoint, out: Path, inside: Path) -> None:
    """Have the files state what the card says."""
    card, files = checkpoint.card, Files(checkpoint.card.id, out)
    if card.prompts is not None:
        stated = files.read("config_sentence_transformers.json")
        _write(out / "config_sentence_transformers.json", {**stated, "prompts": card.prompts})
    if checkpoint.special_tokens:
        name, settings = read_settings(Files(card.id, inside))
        stated = Files(card.id, inside).read(name)
        limit = {"max_seq_length": checkpoint.max_tokens}
        _write(inside / name, {"do_lower_case": settings.do_lower_case, **stated, **limit})
    stated_there = (
        (out / "modules.json").is_file()
        and card.normalize is None
        and checkpoint.pooling_source in (FROM_MODULES, "")
    )
    vectors = checkpoint.scoring is None and checkpoint.pooling
    if stated_there or not checkpoint.special_tokens or not vectors:
        return
    modules = [("Transformer", str(inside.relative_to(out)).removeprefix("."))]
    modules.append(("Pooling", "1_Pooling"))
    for step in checkpoint.steps:
        if isinstance(step, Truncate):  # config_sentence_transformers.json states it
            continue
        inside_weights = isinstance(step, Dense) and not step.own_folder
        if isinstance(step, Normalize | RoundTanh) or inside_weights:
            path = f"{len(modules)}_{type(step).__name__}"
        else:
            path = step.folder.relative_to(checkpoint.root)
        modules.append((type(step).__name__, str(path)))
    if checkpoint.normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
    types = {"RoundTanh": ROUND_TANH}
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": types.get(kind, f"sentence_transformers.models.{kind}"),
        }
        for i, (kind, path) in enumerate(modules)
    ]
    _write(out / "modules.json", listed)
    modes: dict[str, Any] = {key: (mode,) == checkpoint.pooling for key, mode in BOOLEANS.items()}
    if len(checkpoint.pooling) > 1:  # in an order that the older keys cannot state
        spelled = {mode: name for name, mode in NAMES.items()}
        modes = {"pooling_mode": [spelled[mode] for mode in checkpoint.pooling]}
    (out / "1_Pooling").mkdir(exist_ok=True)
    width: object = checkpoint.config.get("hidden_size")
    _write(out / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
