"""Tiny checkpoints with quantised weights, wide enough for groups of 128."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from embedsvc.checkpoints.quantization import Packing
from embedsvc.checkpoints.quantized import quantize
from tests.support.checkpoints import write_json
from tests.support.shapes import VOCABULARY, WIDTH, Shapes
from tests.support.tiny import CASES, Case

WIDE = 128
FOUR_BITS = Packing("affine", 4, 64)
SIZES = {"hidden_size": WIDE, "intermediate_size": WIDE, "num_attention_heads": 4, "head_dim": 32}


def wide_case(name: str) -> Case:
    """A tiny checkpoint of that architecture, wide enough for groups of 128."""
    return Case(CASES[name].config | SIZES, _wide(CASES[name].shapes), CASES[name].pooling)


def _wide(shapes: Shapes) -> Shapes:
    def wider(name: str, size: int) -> int:
        if size == VOCABULARY or (("position" in name or "token_type" in name) and size != WIDTH):
            return size
        return size * WIDE // WIDTH if size % WIDTH == 0 else 4 * size

    return {key: tuple(wider(key, size) for size in shape) for key, shape in shapes.items()}


@dataclass(frozen=True)
class QuantizedCase(Case):
    """One whose matrices are all quantised, but for tables of positions and types."""

    packing: Packing = FOUR_BITS

    def write(self, folder: Path) -> Path:
        super().write(folder)
        stored: dict[str, NDArray[np.generic]] = {}
        for key, value in self.tensors().items():
            if value.ndim < 2 or "position" in key or "token_type" in key:
                stored[key] = value
                continue
            packing, stem = self.packing, key.removesuffix(".weight")
            parts = quantize(value, packing.group_size, packing.bits, packing.mode)
            stored |= {key: parts.packed, f"{stem}.scales": parts.scales}
            if parts.biases is not None:
                stored[f"{stem}.biases"] = parts.biases
        save_file(stored, folder / "model.safetensors")
        about = self.packing._asdict()
        write_json(folder / "config.json", {**self.config, "quantization": about})
        return folder


def quantized_case(name: str, packing: Packing) -> QuantizedCase:
    wide = wide_case(name)
    return QuantizedCase(wide.config, wide.shapes, wide.pooling, packing=packing)


QUANTIZED = {
    "bert-4bit": quantized_case("bert", FOUR_BITS),
    "bert-nvfp4": quantized_case("bert", Packing("nvfp4", 4, 16)),
    "qwen3-3bit": quantized_case("qwen3", Packing("affine", 3, 32)),
    "qwen3-mxfp8": quantized_case("qwen3", Packing("mxfp8", 8, 32)),
}
