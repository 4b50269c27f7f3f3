"""A LoRA adapter in PEFT's layout, merged into the weights of its base model as they are read.

Hu et al., 2021, arXiv:2106.09685; with magnitudes (DoRA), Liu et al., 2024, arXiv:2402.09353.

What PEFT's `merge_and_unload` gives is what comes of it.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.tensor_files import Entry, read_entries
from embedsvc.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HOLDER = "base_model.model."
"""What the names of all tensors of an adapter begin with."""
PART = re.compile(
    r"(.+)\.(lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.(weight|bias))?"
)
"""The name of a module, and of what was learned for it."""
SAFE = re.compile(r"\^?(?:[\w-]|\\\.|\.[*+]?|\\d\+?){1,200}\$?")
"""Patterns that take no long time, whatever they are held against: there is no choice in them."""
WILDCARDS, PATTERNS = 2, 1000
"""The most of a pattern, and of patterns, for the same reason."""
Read = Callable[[str, Entry], NDArray[Any]]


class Config(msgspec.Struct, frozen=True):
    """The fields of adapter_config.json that the weights depend on.

    Which modules are meant, the names of the tensors say; what changes no weight is not read.
    """

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None = None
    revision: str | None = None
    lora_alpha: float = 8
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    use_qalora: Literal[False] = False
    layer_replication: None = None
    target_parameters: tuple[()] | None = None
    trainable_token_indices: None = None
    alora_invocation_tokens: tuple[()] | None = None
    arrow_config: None = None
    kasa_config: None = None
    monteclora_config: None = None
    use_bdlora: None = None
    init_lora_weights: bool | Literal["eva", "gaussian", "loftq", "orthogonal"] | None = True
    """Other ways to begin have changed the base model's weights too."""


class Adapter:
    """An adapter's tensors, by the names that those of the base have in architectures."""

    def __init__(self, model: str, folder: Path) -> None:
        """Raises `CheckpointError` that names the file, and what in it is not supported."""
        self.folder = folder
        self._files = Files(model, folder)
        config = self._files.read_as(CONFIG, Config)
        if config is None:
            raise self._files.error(CONFIG, "is missing")
        self.config = config
        if not self._files.has(WEIGHTS):
            raise self._files.error(WEIGHTS, "is missing")
        self.whole: dict[str, Entry] = {}
        """Tensors that take the place of the base's, by their names in the file."""
        if len(config.alpha_pattern or {}) > PATTERNS:
            raise self._files.error(CONFIG, f"`alpha_pattern` has more than {PATTERNS} patterns")
        for pattern in config.alpha_pattern or {}:
            if not SAFE.fullmatch(pattern) or len(re.findall("[*+]", pattern)) > WILDCARDS:
                raise self._files.error(CONFIG, f"`alpha_pattern`: `{pattern}` is not supported")
        self._parts: dict[str, dict[str, Entry]] = {}
        for entry in read_entries(model, folder / WEIGHTS):
            name = entry.stored.removeprefix(HOLDER).replace(".base_layer.", ".")
            found = PART.fullmatch(name)
            if found is None:
                self.whole[name.replace(".modules_to_save.", ".")] = entry
                continue
            module, part, kind = found.groups()
            self._parts.setdefault(module, {})[f"{part}.bias" if kind == "bias" else part] = entry

    @property
    def files(self) -> tuple[Path, Path]:
        """All that it depends on."""
        return self.folder / CONFIG, self.folder / WEIGHTS

    def modules(self, plain: Callable[[str], str]) -> dict[str, str]:
        """Its names of the modules that it changes, by the names of these in architectures.

        `plain` makes the one of the other.
        """
        return {plain(f"{module}.weight").removesuffix(".weight"): module for module in self._parts}

    def merged(self, module: str, kind: str, value: NDArray[Any], read: Read) -> NDArray[Any]:
        """A module's `weight` or `bias` with what was learned for it.

        Raises `CheckpointError` if the two do not go together.
        """
        parts = self._parts[module]
        if kind == "bias":
            if "lora_B.bias" not in parts:
                return value
            rank = self._shape(module, parts, "lora_A")[0]
            if parts["lora_B.bias"].shape != value.shape:
                raise self._error(module, f"has a bias {parts['lora_B.bias'].shape}")
            scaling = np.float32(self._scaling(module, rank))
            return value + scaling * read(module, parts["lora_B.bias"])
        table = "lora_embedding_A" in parts
        names = ("lora_embedding_A", "lora_embedding_B") if table else ("lora_A", "lora_B")
        (rank, inputs), (outputs, ranks) = (self._shape(module, parts, name) for name in names)
        if rank != ranks:
            raise self._error(module, f"has shapes {(outputs, ranks)} and {(rank, inputs)}")
        changed = (inputs, outputs) if table else (outputs, inputs)
        if changed != value.shape:
            raise self._error(module, f"is for a weight {changed}, and it has {value.shape}")
        down, up = (self._floats(module, parts, name, read) for name in names)
        change = (up @ down) * np.float32(self._scaling(module, rank))
        change = change.T if table else change
        total = value.astype(np.float32) + change
        if not self.config.use_dora:
            return total
        if table:
            raise self._error(module, "has a magnitude for a table, which is not supported")
        magnitude = self._floats(module, parts, "lora_magnitude_vector", read)
        if magnitude.size != len(total):
            raise self._error(module, f"has {magnitude.size} magnitudes, not {len(total)}")
        return total * (magnitude.reshape(-1, 1) / np.linalg.norm(total, axis=1, keepdims=True))

    def _scaling(self, module: str, rank: int) -> float:
        alpha = _by_pattern(self.config.alpha_pattern or {}, module, self.config.lora_alpha)
        return alpha / (math.sqrt(rank) if self.config.use_rslora else rank)

    def _shape(self, module: str, parts: Mapping[str, Entry], name: str) -> tuple[int, int]:
        if name not in parts:
            raise self._error(module, f"has no `{name}`")
        shape = tuple(parts[name].shape)
        if len(shape) != 2 or not all(shape):
            raise self._error(module, f"has a `{name}` of shape {shape}")
        return shape

    def _floats(
        self, module: str, parts: Mapping[str, Entry], name: str, read: Read
    ) -> NDArray[np.float32]:
        if name not in parts:
            raise self._error(module, f"has no `{name}`")
        return read(f"{module}.{name}", parts[name]).astype(np.float32)

    def _error(self, module: str, problem: str) -> CheckpointError:
        return self._files.error(WEIGHTS, f"`{module}` {problem}")


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that matches the end of a module's name.

    >>> _by_pattern({"layer.1.*query": 2.0}, "encoder.layer.1.attention.query", 8.0)
    2.0
    """
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def has_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter in it."""
    return (folder / CONFIG).is_file()
