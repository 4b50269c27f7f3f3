"""What config.json says of quantised weights: bits, group size and mode, of all layers or each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from embedsvc.checkpoints.files import as_object
from embedsvc.checkpoints.quantized import BITS, FLOAT_MODES, GROUP_SIZES, MODES, Mode


class Packing(NamedTuple):
    """How a matrix is quantised."""

    mode: Mode
    bits: int
    group_size: int


AFFINE = tuple(Packing("affine", bits, group) for bits in BITS for group in GROUP_SIZES)
FLOAT = tuple(Packing(name, mode.bits, mode.group_size) for name, mode in FLOAT_MODES.items())
"""The ways in which a matrix may be quantised, with biases and without."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """The settings under `quantization`. A layer's own entry replaces the ones for all layers.

    An entry is an object with `bits`, `group_size` and `mode`, or false where the layer is not
    quantised. What an object leaves out is not known, except for the mode, which is then `affine`.
    """

    general: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The settings of layers without an entry. Empty: nothing is said of them."""
    layers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The entries of layers by name, without `.weight`."""

    def in_words(self) -> str:
        """How weights are quantised; empty if nothing is said of it.

        >>> Quantization({"bits": 4, "group_size": 64}, {"layers.0.mlp": {"bits": 8}}).in_words()
        'affine, 4 bits in groups of 64, 1 layer otherwise'
        """
        said = {"mode": "affine", **self.general}
        words = str(said["mode"]) if self.general or self.layers else ""
        if "bits" in said:
            words += f", {said['bits']} bits"
        if "group_size" in said:
            words += f" in groups of {said['group_size']}"
        if self.layers:
            words += f", {len(self.layers)} layer{'s' * (len(self.layers) > 1)} otherwise"
        return words

    def fewest_bits(self, layer: str, words: int, scales: int, *, biased: bool) -> int:
        """The fewest bits of a layer's weights that fit the words and scales of a row, among those
        that config.json says, if any do."""
        supported = AFFINE if biased else FLOAT
        fitting = [each for each in supported if each.bits * each.group_size * scales == words * 32]
        said = [each for each in fitting if not self.disagreement(layer, each)]
        return min((each.bits for each in said or fitting), default=min(BITS))

    def disagreement(self, layer: str, found: Packing) -> str | None:
        """What is said of a layer and is not what was found; None if they agree."""
        if self.layers.get(layer) is False:
            return "not quantised"
        settings = self._settings(layer)
        if not settings:
            return None
        said = {"mode": "affine", **settings}
        for key in ("mode", "bits", "group_size"):
            if key in said and said[key] != getattr(found, key):
                return f"of {key} {said[key]!r:.50}"
        return None

    def _settings(self, layer: str) -> Mapping[str, Any]:
        return as_object(self.layers.get(layer)) or self.general


def read_quantization(config: Mapping[str, Any]) -> Quantization:
    """What config.json says. Raises `ValueError` that says what is not supported.

    `quantization_config` is where other libraries put theirs; converters for MLX repeat
    `quantization` there.
    """
    said = _checked(config, "quantization")
    _checked(config, "quantization_config")
    general = {key: said[key] for key in ("mode", "bits", "group_size") if key in said}
    layers: dict[str, Any] = {
        key: value for key, value in said.items() if isinstance(value, dict | bool)
    }
    return Quantization(general, layers)


def _checked(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    about = as_object(config.get(name) or {})
    if about is None:
        raise ValueError(f"`{name}` must be an object")
    method = about.get("quant_method", "affine")
    if name == "quantization_config" and method != "affine":
        raise ValueError(f"weights quantised by `{method}` are not supported")
    for entry in (about, *map(as_object, about.values())):
        if entry and entry.get("mode", "affine") not in MODES:
            raise ValueError(f"weights quantised by `{entry['mode']}` are not supported")
    return about
