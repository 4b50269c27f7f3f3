"""The weights of a checkpoint, read strictly: no tensor is missing, left over or misshapen."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.adapter import Adapter
from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.quantization import AFFINE, FLOAT, Packing, Quantization
from embedsvc.checkpoints.quantized import BITS, Quantized, expand
from embedsvc.checkpoints.tensor_files import DTYPES, Entry, read_entries, weight_files
from embedsvc.checkpoints.torch_file import SUFFIXES, read_torch_entries
from embedsvc.errors import CheckpointError

HOLDERS = re.compile(
    r"^((albert|auto_model|bert|deberta|distilbert|electra|gte|language_model|model|mpnet|new|"
    r"roberta)\.)+"
)
"""Attributes that hold the model in classes of transformers, which put them before the names of its
tensors."""
OLDEST_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Ends of names as they were in TensorFlow, from which the first BERTs were converted."""
FIRST_CONVERTER = "encoder.layers.0.attention.query_proj.weight"
"""A tensor of a BERT, by the name that MLX's first converter gave it."""
FIRST_CONVERTER_NAMES = (
    ("embeddings.norm.", "embeddings.LayerNorm."),
    ("encoder.layers.", "encoder.layer."),
    (".attention.query_proj.", ".attention.self.query."),
    (".attention.key_proj.", ".attention.self.key."),
    (".attention.value_proj.", ".attention.self.value."),
    (".attention.out_proj.", ".attention.output.dense."),
    (".ln1.", ".attention.output.LayerNorm."),
    (".ln2.", ".output.LayerNorm."),
    (".linear1.", ".intermediate.dense."),
    (".linear2.", ".output.dense."),
    ("pooler.", "pooler.dense."),
)
"""The names that it wrote, and the ones that transformers has."""


class Tensors:
    """The tensors in a folder, each to be taken once, by its name and the shape it must have.

    All methods raise `CheckpointError` that names the tensor.
    """

    def __init__(
        self,
        model: str,
        folder: Path,
        on_read: Callable[[int], None] | None = None,
        quantization: Quantization | None = None,
        *,
        file: str | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        """`on_read` is called with the bytes of each tensor that is taken. Quantised weights must
        be what `quantization` says. `file` is read in place of the folder's weights. What an
        `adapter` has learned is merged into what is taken."""
        self._model = model
        self._on_read = on_read
        self.folder = folder
        self._left: dict[str, Entry] = {}
        files = [folder / file] if file else weight_files(model, folder)
        entries = [entry for file in files for entry in _read_entries(model, file)]
        renamed = any(HOLDERS.sub("", entry.stored) == FIRST_CONVERTER for entry in entries)
        for entry in entries:
            name = _plain(entry.stored, renamed=renamed)
            if name in self._left:
                raise self.error(f"tensor `{name}` is there twice")
            self._left[name] = entry
        self._adapter = adapter
        self._adapted: dict[str, str] = {}
        """The adapter's names of the modules that it changes, by those of architectures."""
        self._merged: set[str] = set()
        """Those of them that were taken."""
        if adapter is not None:
            for entry_name, entry in adapter.whole.items():
                self._left[_plain(entry_name, renamed=renamed)] = entry
            self._adapted = adapter.modules(lambda name: _plain(name, renamed=renamed))
        said = quantization or Quantization()
        layers = {
            _plain(f"{name}.weight", renamed=renamed).removesuffix(".weight"): settings
            for name, settings in said.layers.items()
        }
        self.quantization = Quantization(said.general, layers)

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name which was not taken yet."""
        return name in self._left

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as it is stored."""
        return self._entry(name).shape

    def entries(self) -> dict[str, Entry]:
        """The tensors that were not taken yet, by name."""
        return dict(self._left)

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor of that name, which must have that shape, as float32."""
        if len(shape) == 2:
            return expand(self.take_weight(name, *shape))
        value = self.take_stored(name)
        self._check(name, value.shape, shape)
        return self._floats(name, value)

    def take_weight(self, name: str, outputs: int, inputs: int) -> NDArray[np.float32] | Quantized:
        """The matrix (outputs, inputs) of that name, packed if it is stored so."""
        stem = name.removesuffix(".weight")
        if f"{stem}.scales" not in self._left:
            value = self.take_stored(name)
            self._check(name, value.shape, (outputs, inputs))
            return self._floats(name, value)
        mode, bits, group_size = self._packing(stem, inputs)
        self._check(name, (self.shape(name)[0], inputs), (outputs, inputs))
        packed, scales = self.take_stored(name), self.take_stored(f"{stem}.scales")
        if mode != "affine":
            return Quantized(packed, scales, None, group_size, bits, mode)
        biases = self._floats(f"{stem}.biases", self.take_stored(f"{stem}.biases"))
        return Quantized(packed, self._floats(f"{stem}.scales", scales), biases, group_size, bits)

    def rows(self, name: str, rows: Sequence[int], table: int, width: int) -> NDArray[np.float32]:
        """Some rows (n, width) of a matrix (table, width), of which no more is read."""
        stem = name.removesuffix(".weight")
        if stem in self._adapted:
            raise self.error(f"tensor `{name}` is changed by the adapter, which is not supported")
        if any(not 0 <= row < table for row in rows):
            raise self.error(f"tensor `{name}` has {table} rows, and one of {list(rows)} is needed")
        if f"{stem}.scales" not in self._left:
            self._check(name, self.shape(name), (table, width))
            return self._floats(name, self._stored_rows(name, rows))
        mode, bits, group_size = self._packing(stem, width)
        self._check(name, (self.shape(name)[0], width), (table, width))
        packed, scales = (self._stored_rows(f"{stem}.{x}", rows) for x in ("weight", "scales"))
        if mode != "affine":
            return expand(Quantized(packed, scales, None, group_size, bits, mode))
        biases = self._floats(f"{stem}.biases", self._stored_rows(f"{stem}.biases", rows))
        scales = self._floats(f"{stem}.scales", scales)
        return expand(Quantized(packed, scales, biases, group_size, bits))

    def _packing(self, stem: str, inputs: int) -> Packing:
        """How a matrix is quantised, found out by the shapes and types of its tensors. None of them
        is read before they are checked."""
        name = f"{stem}.weight"
        packed, scales = self._entry(name), self._entry(f"{stem}.scales")
        biased = scales.dtype != "U8"
        parts = [packed, scales, *([self._entry(f"{stem}.biases")] if biased else [])]
        if f"{stem}.global_scale" in self._left:
            raise self.error(
                f"tensor `{stem}.global_scale` is there, and a scale of all weights beside those "
                "of their groups is not supported"
            )
        if any(len(part.shape) != 2 or 0 in part.shape for part in parts):
            raise self.error(f"tensor `{name}` is quantised, but not a matrix")
        bits, group_size = packed.shape[1] * 32 / inputs, inputs / scales.shape[1]
        supported = AFFINE if biased else FLOAT
        packing = next((each for each in supported if each[1:] == (bits, group_size)), None)
        if packed.dtype != "U32" or packing is None:
            raise self.error(
                f"tensor `{name}` of {bits:g} bits in groups of {group_size:g} is not supported "
                f"with scales of {scales.dtype}"
            )
        for part, label in zip(parts[1:], ("scales", "biases"), strict=False):
            self._check(f"{stem}.{label}", part.shape, (packed.shape[0], scales.shape[1]))
        if not biased and f"{stem}.biases" in self._left:
            raise self.error(f"tensor `{stem}.biases` is there, and {packing.mode} has none")
        if said := self.quantization.disagreement(stem, packing):
            raise self.error(
                f"tensor `{name}` is quantised by {packing.mode} in {packing.bits} bits and groups "
                f"of {packing.group_size}; config.json says that it is {said}"
            )
        return packing

    def fewest_bits(self, name: str) -> int:
        """The fewest bits that the weights of a quantised matrix may have, by its shapes and by
        what config.json says."""
        stem = name.removesuffix(".weight")
        packed, scales = self._left.get(name), self._left.get(f"{stem}.scales")
        if packed is None or scales is None or not packed.shape[-1:] or not scales.shape[-1:]:
            return min(BITS)
        return self.quantization.fewest_bits(
            stem, packed.shape[-1], scales.shape[-1], biased=scales.dtype != "U8"
        )

    def take_stored(self, name: str) -> NDArray[Any]:
        """The tensor of that name in the type in which it is stored, bfloat16 as float32."""
        entry = self._entry(name)
        del self._left[name]
        value = self._read(name, entry)
        module, _, kind = name.rpartition(".")
        if self._adapter is None or module not in self._adapted or kind not in ("weight", "bias"):
            return value
        if kind == "weight" and not np.issubdtype(value.dtype, np.floating):
            raise self.error(f"tensor `{name}` is quantised: no adapter can be merged into it")
        theirs = self._adapted[module]
        if kind == "weight":
            self._merged.add(module)
        return self._adapter.merged(theirs, kind, value, self._read)

    def _stored_rows(self, name: str, rows: Sequence[int]) -> NDArray[Any]:
        """The same of some rows of a matrix, without taking it."""
        whole = self._entry(name)
        return np.concatenate([self._read(name, whole.row(row)) for row in rows])

    def _read(self, name: str, entry: Entry) -> NDArray[Any]:
        count = entry.span
        with Files(self._model, entry.file.parent).open(entry.file.name) as stream:
            stream.seek(entry.offset)
            flat: NDArray[Any] = np.fromfile(stream, DTYPES[entry.dtype], count)
        if len(flat) < count:
            raise self.error(f"tensor `{name}`: {entry.file} ends before it does")
        if entry.strides is None:
            value = flat.reshape(entry.shape)
        else:  # some numbers of a larger tensor, or in another order
            steps = [step * flat.itemsize for step in entry.strides]
            value = np.lib.stride_tricks.as_strided(flat, entry.shape, steps).copy()
        if self._on_read is not None:
            self._on_read(value.nbytes)
        if entry.dtype == "BF16":
            return (value.astype(np.uint32) << 16).view(np.float32)
        return value

    def refuse_left_over(self, unused: tuple[str, ...]) -> None:
        """Raise if a tensor was not taken, unless its name begins with one of `unused`.

        Tables of rotary positions, which old checkpoints of decoders have, are made anew.
        """
        unread = (name for name in self._left if not name.startswith(unused))
        left = sorted(name for name in unread if not name.endswith(".rotary_emb.inv_freq"))
        lost = {*self._adapted} - self._merged
        if lost := sorted(module for module in lost if not f"{module}.".startswith(unused)):
            raise self.error(f"`{lost[0]}` is changed by the adapter, and is no layer of the model")
        if left:
            raise self.error(f"tensor `{left[0]}` is not known ({len(left)} such)")

    def _entry(self, name: str) -> Entry:
        entry = self._left.get(name)
        if entry is None:
            raise self.error(f"tensor `{name}` is missing")
        return entry

    def _floats(self, name: str, value: NDArray[Any]) -> NDArray[np.float32]:
        if not np.issubdtype(value.dtype, np.floating):
            raise self.error(f"tensor `{name}` holds {value.dtype}, not floats")
        return value.astype(np.float32, copy=False)

    def _check(self, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if found != expected:
            raise self.error(f"tensor `{name}` has shape {found}, not {expected}")

    def error(self, message: str) -> CheckpointError:
        """The error to raise about the weights."""
        return CheckpointError(f"model `{self._model}`: {self.folder}: {message}")


def _read_entries(model: str, file: Path) -> list[Entry]:
    return (read_torch_entries if file.suffix in SUFFIXES else read_entries)(model, file)


def _plain(name: str, *, renamed: bool) -> str:
    """The name that architectures ask for.

    >>> _plain("bert.embeddings.LayerNorm.weight", renamed=False)
    'embeddings.LayerNorm.weight'
    >>> _plain("encoder.layers.0.ln1.bias", renamed=True)
    'encoder.layer.0.attention.output.LayerNorm.bias'
    >>> _plain("bert.embeddings.LayerNorm.gamma", renamed=False)
    'embeddings.LayerNorm.weight'
    """
    name = HOLDERS.sub("", name)
    for old, new in OLDEST_NAMES.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    for theirs, plain in FIRST_CONVERTER_NAMES if renamed else ():
        name = name.replace(theirs, plain)
    return name
