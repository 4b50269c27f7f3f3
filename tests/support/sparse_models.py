"""A tiny random checkpoint of every kind that makes sparse vectors.

`tests/reference/sparse.py` records what sentence-transformers' SparseEncoder makes of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from embedsvc.inference.heads.sparse_vector import SparseVector
from tests.support.checkpoints import WORDS, write_json, write_tokenizer
from tests.support.classifiers import inside, without
from tests.support.shapes import VOCABULARY, WIDTH, Shapes, bert_shapes, linear, norm
from tests.support.tiny import CASES, Case
from tests.support.torch_files import pack

OLD = "sentence_transformers.sparse_encoder.models"
NEW = "sentence_transformers.sparse_encoder.modules"
BASE = "sentence_transformers.base.modules"
RECORDED = Path(__file__).parents[1] / "reference" / "architectures"
QUERIES = ("hello world", "[UNK] a b a", "query : world")


@dataclass(frozen=True)
class SparseCase(Case):
    """A checkpoint with a masked-LM head."""

    pooling_strategy: str = "max"
    activation_function: str = "relu"
    router: str = ""
    """How the weights of queries are stored: as a `tensor`, or in a `json`; none: no Router."""

    def write(self, folder: Path) -> Path:
        """The checkpoint, as sentence-transformers saves it."""
        pooling = {
            "pooling_strategy": self.pooling_strategy,
            "activation_function": self.activation_function,
        }
        if not self.router:
            self._write_transformer(folder)
            write_json(folder / "1_SpladePooling" / "config.json", pooling)
            types = {"": f"{OLD}.MLMTransformer", "1_SpladePooling": f"{OLD}.SpladePooling"}
            self._write_modules(folder, types)
            return folder
        names = ("document_0_Transformer", "document_1_SpladePooling", "query_0_Static")
        types = (f"{BASE}.transformer.Transformer", f"{NEW}.splade_pooling.SpladePooling",
                 f"{NEW}.sparse_static_embedding.SparseStaticEmbedding")  # fmt: skip
        document, pooled, query = names
        self._write_modules(folder, {"": f"{BASE}.router.Router"})
        parameters = {"default_route": "document", "allow_empty_key": True}
        structure = {"query": [query], "document": [document, pooled]}
        routes = {"types": dict(zip(names, types, strict=True)), "structure": structure}
        write_json(folder / "router_config.json", routes | {"parameters": parameters})
        self._write_transformer(folder / document)
        settings = {"transformer_task": "fill-mask", "max_seq_length": self.longest}
        write_json(folder / document / "sentence_bert_config.json", settings)
        write_json(folder / pooled / "config.json", pooling)
        self._write_tokenizer(folder / query)
        weights = self.query_weights()
        stated: dict[str, Any] = {"frozen": True}
        if self.router == "json":
            file = folder / query / "idf.json"
            by_token = dict(zip(WORDS, weights.tolist(), strict=True))
            file.write_text(json.dumps(by_token), encoding="utf-8")
            stated["path"] = str(file)
        else:
            save_file({"weight": weights}, folder / query / "model.safetensors")
        write_json(folder / query / "config.json", stated)
        return folder

    def query_weights(self) -> np.ndarray:
        """A weight for each token of the tokeniser, of which some are 0."""
        weights = np.random.default_rng(3).uniform(0.5, 4, len(WORDS)).astype(np.float32)
        weights[::7] = 0
        return weights

    def words(self) -> dict[str, int]:
        """The ids of the tokeniser's tokens."""
        return {word: i for i, word in enumerate(WORDS)}

    def _write_transformer(self, folder: Path) -> None:
        write_json(folder / "config.json", self.config)
        self._write_tokenizer(folder)
        save_file(self.tensors(), folder / "model.safetensors")

    def _write_tokenizer(self, folder: Path) -> None:
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.longest}
        named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        write_json(folder / "tokenizer_config.json", about | named | {"unk_token": "[UNK]"})
        write_tokenizer(folder)

    def _write_modules(self, folder: Path, types: dict[str, str]) -> None:
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": type_}
            for i, (path, type_) in enumerate(types.items())
        ]
        write_json(folder / "modules.json", listed)
        about = {"model_type": "SparseEncoder", "prompts": {"query": "query: ", "document": ""}}
        write_json(folder / "config_sentence_transformers.json", about)


def masked(name: str, case: str, **config: Any) -> dict[str, Any]:
    """The config.json of a case's backbone with a masked-LM head."""
    return CASES[case].config | {"architectures": [f"{name}ForMaskedLM"]} | config


def last_layer(name: str, bias: str, *, tied: bool) -> Shapes:
    own = {} if tied else {f"{name}.weight": (VOCABULARY, WIDTH)}
    return own | {bias: (VOCABULARY,)}


PREDICTIONS = "cls.predictions"
BERT_HEAD = (
    linear(f"{PREDICTIONS}.transform.dense", WIDTH, WIDTH)
    | norm(f"{PREDICTIONS}.transform.LayerNorm")
    | last_layer(f"{PREDICTIONS}.decoder", f"{PREDICTIONS}.bias", tied=True)
)
ROBERTA_HEAD = (
    linear("lm_head.dense", WIDTH, WIDTH)
    | norm("lm_head.layer_norm")
    | last_layer("lm_head.decoder", "lm_head.bias", tied=True)
)
BERT = inside("bert", without("pooler", bert_shapes(64, 2))) | BERT_HEAD
SPARSE_CASES = {
    "bert-splade": SparseCase(masked("Bert", "bert"), BERT),
    "bert-untied-splade": SparseCase(
        masked("Bert", "bert", tie_word_embeddings=False),
        BERT | last_layer(f"{PREDICTIONS}.decoder", f"{PREDICTIONS}.decoder.bias", tied=False),
        activation_function="log1p_relu",
    ),
    "distilbert-splade": SparseCase(
        masked("DistilBert", "distilbert"),
        inside("distilbert", CASES["distilbert"].shapes)
        | linear("vocab_transform", WIDTH, WIDTH)
        | norm("vocab_layer_norm")
        | last_layer("vocab_projector", "vocab_projector.bias", tied=True),
        activation_function="log1p_relu",
    ),
    "xlm-roberta-splade": SparseCase(
        masked("XLMRoberta", "xlm-roberta"),
        inside("roberta", without("pooler", bert_shapes(66, 1))) | ROBERTA_HEAD,
        pooling_strategy="sum",
    ),
    "modernbert-splade": SparseCase(
        masked("ModernBert", "modernbert"),
        inside("model", CASES["modernbert"].shapes)
        | linear("head.dense", WIDTH, WIDTH, bias=False)
        | norm("head.norm", bias=False)
        | last_layer("decoder", "decoder.bias", tied=True),
    ),
    "bert-routed": SparseCase(
        masked("Bert", "bert"), BERT, activation_function="log1p_relu", router="tensor"
    ),
    "distilbert-routed": SparseCase(
        masked("DistilBert", "distilbert"),
        inside("distilbert", CASES["distilbert"].shapes)
        | linear("vocab_transform", WIDTH, WIDTH)
        | norm("vocab_layer_norm")
        | last_layer("vocab_projector", "vocab_projector.bias", tied=True),
        router="json",
    ),
}
"""By what follows which backbone."""


def write_m3(folder: Path, *, bias: float = 0.0) -> dict[str, np.ndarray]:
    """An XLM-RoBERTa with a linear layer in a file of torch's, which is returned."""
    CASES["xlm-roberta"].write(folder)
    named = {"cls_token": "[CLS]", "eos_token": "[SEP]", "pad_token": {"content": "[PAD]"}}
    write_json(folder / "tokenizer_config.json", named | {"unk_token": "[UNK]"})
    weight = np.random.default_rng(9).normal(size=(1, WIDTH)).astype(np.float32)
    layer = {"weight": weight, "bias": np.array([bias], np.float32)}
    (folder / "sparse_linear.pt").write_bytes(pack(layer))
    return layer


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def dense(vectors: list[SparseVector], size: int) -> np.ndarray:
    rows = np.zeros((len(vectors), size), np.float32)
    for row, (indices, values) in zip(rows, vectors, strict=True):
        row[indices] = values
    return rows
