"""Plain checkpoints, and what converters to MLX make of them; see test_converters.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.checkpoints import write_json
from tests.support.quantized_cases import WIDE, wide_case
from tests.support.shapes import VOCABULARY

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Source:
    """A checkpoint as its authors published it, but tiny and with random weights."""

    case: str
    """Its name in tests/support/tiny.py."""
    repo: str
    """The model whose files it has."""
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    """What that model's config.json says beside the case's."""
    holder: str = ""
    """What the names of its tensors begin with."""
    card: dict[str, Any] = field(default_factory=dict[str, Any])
    """What a card has to say of its conversions."""
    dense: bool = False
    """Whether two Dense layers follow the pooling, as in EmbeddingGemma."""
    masked_lm: bool = False
    """Whether it has a head that guesses words, which vectors do not need."""

    def write(self, folder: Path) -> Path:
        case = wide_case(self.case)
        case.write(folder)
        tensors = {f"{self.holder}{name}": value for name, value in case.tensors().items()}
        if self.masked_lm:
            tensors |= masked_lm_head()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        write_json(folder / "config.json", case.config | self.config)
        # Of any class that takes tokenizer.json as it is.
        tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": case.longest}
        write_json(folder / "tokenizer_config.json", tokenizer)
        if self.dense:
            write_dense(folder)
        return folder


def write_dense(folder: Path) -> None:
    """Two Dense layers between the pooling and the normalisation, wider in between."""
    random = np.random.default_rng(3)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    for i, (inputs, outputs) in enumerate(((WIDE, 4 * WIDE), (4 * WIDE, WIDE)), 2):
        weight = random.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        sizes = {"in_features": inputs, "out_features": outputs, "bias": False}
        activation = {"activation_function": "torch.nn.modules.linear.Identity"}
        write_json(folder / f"{i}_Dense" / "config.json", sizes | activation)
        save_file({"linear.weight": weight}, folder / f"{i}_Dense" / "model.safetensors")
        kinds[f"{i}_Dense"] = "Dense"
    kinds["4_Normalize"] = "Normalize"
    package = "sentence_transformers.models"
    modules = [{"path": path, "type": f"{package}.{kind}"} for path, kind in kinds.items()]
    write_json(folder / "modules.json", modules)


def masked_lm_head() -> Arrays:
    """The tensors of a ModernBERT that guesses words; it shares the table of embeddings."""
    random = np.random.default_rng(4)
    shapes = {"head.dense.weight": (WIDE, WIDE), "head.norm.weight": (WIDE,)}
    shapes["decoder.bias"] = (VOCABULARY,)
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


GEMMA = {"sliding_window": 512, "sliding_window_pattern": 3}
SOURCES = {
    "bert": Source("bert", "bge-small-en-v1.5", {"architectures": ["BertModel"]}),
    "xlm-roberta": Source("xlm-roberta", "multilingual-e5-small"),
    "modernbert": Source(
        "modernbert",
        "nomicai-modernbert-embed-base",
        {"architectures": ["ModernBertModel"], "classifier_pooling": "mean"},
    ),
    "modernbert-for-masked-lm": Source(
        "modernbert",
        "answerdotai-ModernBERT-base",
        {"architectures": ["ModernBertForMaskedLM"], "tie_word_embeddings": True},
        "model.",
        card={"pooling": "mean"},
        masked_lm=True,
    ),
    "qwen3": Source("qwen3", "Qwen3-Embedding-0.6B", {"tie_word_embeddings": True}, "model."),
    "gemma3_text": Source("gemma3_text", "embeddinggemma-300m", GEMMA, dense=True),
    "gemma3_text-decoder": Source(
        "gemma3_text-causal", "my-gemma", GEMMA, "model.", card={"pooling": "last_token"}
    ),
}
ENCODERS = ("bert", "xlm-roberta", "modernbert", "modernbert-for-masked-lm")
ALL = (*ENCODERS, "qwen3", "gemma3_text")
MODES = ("mxfp4", "mxfp8", "nvfp4")
AFFINE = ((2, 32), (3, 64), (4, 128), (5, 32), (6, 64), (8, 128))


@dataclass(frozen=True)
class Converter:
    """A version of a package that converts checkpoints."""

    package: str
    kinds: tuple[str, ...]
    """The sources that it knows."""
    affine: tuple[tuple[int, int], ...] = ((4, 64), (6, 64), (8, 64))
    """Bits and group sizes to try."""
    modes: tuple[str, ...] = ()
    """The modes of quantisation that it knows beside `affine`."""
    recipes: tuple[str, ...] = ()
    """Its mixtures of bits."""

    def options(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What it is asked for; each with a name, as repositories have it at their end."""
        for name, dtype in (("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")):
            yield name, {"dtype": dtype}
        quantized = {"dtype": "float32", "quantize": True}
        for bits, size in self.affine:
            yield f"{bits}bit-gs{size}", quantized | {"q_bits": bits, "q_group_size": size}
        for mode in self.modes:
            yield mode, quantized | {"q_mode": mode, "q_bits": None, "q_group_size": None}
        for recipe in self.recipes:
            yield recipe, quantized | {"quant_predicate": recipe, "q_group_size": 64}


CONVERTERS = {
    "mlx-embeddings-0.0.3": Converter("mlx_embeddings", ENCODERS),
    "mlx-embeddings-0.0.5": Converter("mlx_embeddings", ALL),
    "mlx-embeddings": Converter("mlx_embeddings", ALL, AFFINE, MODES),
    "mlx-lm": Converter(
        "mlx_lm",
        ("qwen3", "gemma3_text-decoder"),
        AFFINE,
        MODES,
        ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"),
    ),
}
"""By name. Those with a version in it are installed beside the environment's own packages."""


def run(name: str, folder: Path, texts: list[NDArray[np.int32]]) -> None:
    """Have a converter make all that it can of all that it knows, in one process."""
    converter = CONVERTERS[name]
    jobs: list[dict[str, Any]] = []
    for kind in converter.kinds:
        source = SOURCES[kind].write(folder / kind)
        for suffix, options in converter.options():
            out = place(folder, kind, suffix)
            jobs.append({"source": str(source), "out": str(out), "options": options})
    asked = folder / "jobs.json"
    asked.write_text(json.dumps({"jobs": jobs, "texts": [text.tolist() for text in texts]}))
    beside = Path(sys.prefix) / name
    assert beside.is_dir() or not name[-1].isdigit(), f"`make test-extras` installs it: {beside}"
    script = Path(__file__).with_name("run_converter.py")
    done = subprocess.run(
        [sys.executable, str(script), converter.package, str(asked)],
        env={**os.environ, "PYTHONPATH": str(beside), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def place(folder: Path, kind: str, suffix: str) -> Path:
    """Where a conversion is written: in the hub's cache, as one of mlx-community's."""
    repo = f"mlx-community--{SOURCES[kind].repo}-{suffix}"
    return folder / f"models--{repo}" / "snapshots" / "0"
