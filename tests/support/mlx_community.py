"""The embedding models of mlx-community that public code names most, and how their files are laid
out, in tiny.

What is known of the files is in the issues and pages that `source` names, and in the converters'
code, which extras/test_converters.py runs. `python -m tests.support.pages` puts the names into
docs/models.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from embedsvc.checkpoints.quantization import Packing
from tests.support.checkpoints import write_json
from tests.support.quantized_cases import wide_case
from tests.support.tiny import Case

Tensors = dict[str, mx.array]
Precision = Packing | mx.Dtype
Layout = Callable[[Path, Tensors, dict[str, Any]], None]

BERT, XLM_ROBERTA, MODERNBERT = "bert", "xlm-roberta", "modernbert"
QWEN3, GEMMA = "qwen3", "gemma3_text"
FOUR, EIGHT, MXFP8 = Packing("affine", 4, 64), Packing("affine", 8, 64), Packing("mxfp8", 8, 32)
HALF, BRAIN = mx.float16, mx.bfloat16


def by_mlx_embeddings(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    """Root files of sentence-transformers, and no folders beside them."""
    _write(folder, "model.safetensors", tensors, config)
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    package = "sentence_transformers.models"
    modules = [
        {"path": path, "type": f"{package}.{kind}"} for path, kind in zip(paths, kinds, strict=True)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64})


def with_pooling_config(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    """The same, with the settings of the pooling module in config.json."""
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    by_mlx_embeddings(folder, tensors, config | {"pooling_config": pooling})


def by_mlx_lm(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    """No file of sentence-transformers at all; the quantisation is there twice."""
    if "quantization" in config:
        config = config | {"quantization_config": config["quantization"]}
    _write(folder, "model.safetensors", tensors, config)


def numbered(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    """Weights as MLX's first tools wrote them, with a table that counts positions."""
    positions = {"embeddings.position_ids": mx.arange(64)[None]}
    _write(folder, "weights.00.safetensors", tensors | positions, config)


def _write(folder: Path, weights: str, tensors: Tensors, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / weights), tensors, {"format": "mlx"})
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", {"model_max_length": 64})


@dataclass(frozen=True)
class Conversion:
    """A repository of mlx-community."""

    name: str
    like: str
    """The shipped card of the model that it was converted from."""
    pooling: str
    kind: str
    precision: Precision
    layout: Layout
    source: str
    """Where it is told what its files are, or that some are missing."""
    card: dict[str, Any] = field(default_factory=dict[str, Any])
    """What its card has to say beside `repo` and `like`."""

    def lines(self) -> str:
        """The card that loads it."""
        more = [f'{key} = "{value}"' for key, value in self.card.items()]
        like = [f'like = "{self.like}"'] if self.like else []
        repo = f'repo = "mlx-community/{self.name}"'
        return "\n".join([f'[models."{self.name}"]', repo, *like, *more, ""])

    def case(self) -> Case:
        """The tiny model."""
        return wide_case(self.kind)

    def write(self, folder: Path, plain: Path) -> None:
        """Write its layout to `folder`, and to `plain` the same weights as floats, as
        sentence-transformers lays them out."""
        case = self.case()
        config = dict(case.config)
        case.write(plain)
        pooling = {"last_token": "lasttoken"}.get(self.pooling, self.pooling)
        write_json(plain / "1_Pooling" / "config.json", {"pooling_mode": pooling})
        stored: Tensors = {}
        floats: Tensors = {}
        for name, value in case.tensors().items():
            holder = "" if self.kind in (BERT, XLM_ROBERTA) else "model."
            parts, floats[name] = _rounded(mx.array(value), self.precision)
            keys = (name, *(name.replace("weight", part) for part in ("scales", "biases")))
            stored |= {f"{holder}{key}": part for key, part in zip(keys, parts, strict=False)}
        if isinstance(self.precision, Packing):
            config["quantization"] = self.precision._asdict()
        mx.save_safetensors(str(plain / "model.safetensors"), floats)
        self.layout(folder, stored, config)
        (folder / "tokenizer.json").write_bytes((plain / "tokenizer.json").read_bytes())
        if self.kind == GEMMA:
            self._add_dense(folder, plain)

    def _add_dense(self, folder: Path, plain: Path) -> None:
        """Two Dense layers: among the weights, and in folders of their own."""
        weights = mx.load(str(folder / "model.safetensors"))
        width = self.case().config["hidden_size"]
        random = np.random.default_rng(5)
        modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
        modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
        for i, (inputs, outputs) in enumerate(((width, 4 * width), (4 * width, width))):
            value = random.normal(0, inputs**-0.5, (outputs, inputs))
            parts, whole = _rounded(mx.array(value, mx.float32), self.precision)
            keys = (f"dense.{i}.{part}" for part in ("weight", "scales", "biases"))
            weights |= dict(zip(keys, parts, strict=False))
            place = plain / f"{i + 2}_Dense"
            sizes = {"in_features": inputs, "out_features": outputs, "bias": False}
            write_json(place / "config.json", sizes | {"activation_function": IDENTITY})
            mx.save_safetensors(str(place / "model.safetensors"), {"linear.weight": whole})
            modules.append({"path": place.name, "type": "sentence_transformers.models.Dense"})
        modules.append({"path": "4", "type": "sentence_transformers.models.Normalize"})
        write_json(plain / "modules.json", modules)
        write_json(folder / "modules.json", modules)
        mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


IDENTITY = "torch.nn.modules.linear.Identity"


def _rounded(value: mx.array, precision: Precision) -> tuple[list[mx.array], mx.array]:
    """A tensor in that precision as it is stored, and in float32."""
    if isinstance(precision, mx.Dtype):
        return [value.astype(precision)], value.astype(precision).astype(mx.float32)
    if value.ndim < 2:
        return [value], value
    parts = mx.quantize(value, precision.group_size, precision.bits, precision.mode)
    how = {"group_size": precision.group_size, "bits": precision.bits, "mode": precision.mode}
    biases = parts[2] if len(parts) > 2 else None
    return [*parts], mx.dequantize(*parts[:2], biases, **how, dtype=mx.float32)


def _conversions(
    like: str, pooling: str, kind: str, layout: Layout, source: str, **ends: Precision
) -> list[Conversion]:
    """Those of one model, by what stands behind its name."""
    return [
        Conversion(f"{like}-{end}", like, pooling, kind, how, layout, source)
        for end, how in ends.items()
    ]


_ALDEN = "twoimo/alden docs: weights.00.safetensors, and embeddings.position_ids in it"
_LIKE_SMALL = "taken to be as that of multilingual-e5-small-mlx"
_CONVERTER = "what its converter writes, by extras/test_converters.py"
_README = "Blaizzy/mlx-embeddings README.md"
CONVERSIONS = (
    *_conversions(
        *("Qwen3-Embedding-0.6B", "last_token", QWEN3, by_mlx_lm, "ml-explore/mlx-swift-lm#156"),
        **{"4bit-DWQ": FOUR, "8bit": EIGHT, "mxfp8": MXFP8},
    ),
    *_conversions(
        *("Qwen3-Embedding-4B", "last_token", QWEN3, by_mlx_lm, "ml-explore/mlx-swift-lm#156"),
        **{"4bit-DWQ": FOUR},
    ),
    *_conversions(
        *("Qwen3-Embedding-8B", "last_token", QWEN3, by_mlx_lm, "jundot/omlx#327"),
        **{"4bit-DWQ": FOUR, "mxfp8": MXFP8},
    ),
    *_conversions(
        *("all-MiniLM-L6-v2", "mean", BERT, by_mlx_embeddings, _README),
        **{"4bit": FOUR, "bf16": BRAIN},
    ),
    *_conversions(
        *("bge-small-en-v1.5", "cls", BERT, by_mlx_embeddings, "ddalcu/mlx-serve#116"),
        **{"4bit": FOUR, "8bit": EIGHT, "bf16": BRAIN},
    ),
    *_conversions(
        *("bge-m3", "cls", XLM_ROBERTA, by_mlx_embeddings, "jundot/omlx#2594"),
        **{"mlx-fp16": HALF, "mlx-4bit": FOUR},
    ),
    *_conversions(
        *("bge-m3", "cls", XLM_ROBERTA, with_pooling_config, "jundot/omlx#2650"),
        **{"mlx-8bit": EIGHT},
    ),
    *_conversions("multilingual-e5-small", "mean", BERT, numbered, _ALDEN, mlx=HALF),
    *_conversions("multilingual-e5-base", "mean", XLM_ROBERTA, numbered, _LIKE_SMALL, mlx=HALF),
    *_conversions("multilingual-e5-large", "mean", XLM_ROBERTA, numbered, _LIKE_SMALL, mlx=HALF),
    *_conversions(
        *("embeddinggemma-300m", "mean", GEMMA, by_mlx_embeddings, "cubist38/mlx-openai-server#65"),
        **{"4bit": FOUR, "8bit": EIGHT, "bf16": BRAIN},
    ),
    *_conversions(
        *("snowflake-arctic-embed-l-v2.0", "cls", XLM_ROBERTA, by_mlx_embeddings, _CONVERTER),
        **{"4bit": FOUR},
    ),
    *(
        Conversion(
            *(f"nomicai-modernbert-embed-base-{end}", "modernbert-embed-base", "mean", MODERNBERT),
            *(how, by_mlx_embeddings, _CONVERTER),
        )
        for end, how in {"4bit": FOUR, "bf16": BRAIN}.items()
    ),
    Conversion(
        *("mxbai-embed-large-v1", "mxbai-embed-large-v1", "cls", BERT, BRAIN),
        *(by_mlx_embeddings, "ddalcu/mlx-serve#116"),
    ),
    Conversion(
        *("answerdotai-ModernBERT-base-4bit", "", "mean", MODERNBERT, FOUR, by_mlx_embeddings),
        *(_README, {"pooling": "mean"}),
    ),
)
"""The last is no embedding model, and pools as its card says."""


def names() -> str:
    """The table in docs/models.md: a row for each model, with its conversions."""
    by_model: dict[str, list[str]] = {}
    for each in CONVERSIONS:
        if each.like:
            by_model.setdefault(each.like, []).append(f"`{each.name}`")
    rows = [f"| `{like}` | {', '.join(known)} |" for like, known in by_model.items()]
    return "\n".join(["| `like` | `mlx-community/` |", "|---|---|", *rows, ""])
