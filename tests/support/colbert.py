"""Tiny random late-interaction models, in each layout that there is of them.

`tests/reference/colbert.py` records what sentence-transformers' MultiVectorEncoder makes of them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.support.checkpoints import WORDS, write_json, write_modules
from tests.support.shapes import WIDTH
from tests.support.tiny import CASES, Case

TOKENS = [*WORDS, "[MASK]", "[unused0]", "[unused1]", ".", "!"]
MARKERS = ("[Q] ", "[D] ")
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"
QUERIES = ["Hello", "a world o b c d", "hello. hello!", "z y x w v u t s r q p o n m l k j i h"]
DOCUMENTS = [
    "hello world.",
    "a! b. c",
    "x",
    "hello [Q] world",
    "a b c d e f g h i j k l m n o p " * 4,
]
MASKS = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask"
SIZES = {"activation_function": IDENTITY, "bias": False}


def dense(inputs: int, outputs: int, **more: Any) -> tuple[str, dict[str, Any]]:
    return "Dense", SIZES | {"in_features": inputs, "out_features": outputs} | more


@dataclass(frozen=True)
class Colbert:
    """A model that gives vectors of tokens."""

    case: Case
    about: dict[str, Any]
    """config_sentence_transformers.json, or artifact.metadata of Stanford's."""
    modules: tuple[tuple[str, dict[str, Any]], ...] = ()
    """What follows the backbone; none: the model is Stanford's."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """sentence_bert_config.json."""
    markers: tuple[str, ...] = ()
    """Tokens that are added to the vocabulary."""
    lower: bool = True
    package: str = "sentence_transformers.models"

    def write(self, folder: Path) -> Path:
        tensors, config = self.case.tensors(), self.case.config
        if not self.modules:
            tensors = {f"bert.{name}": value for name, value in tensors.items()}
            linear = np.random.default_rng(3).normal(0, 0.3, (8, WIDTH))
            tensors["linear.weight"] = linear.astype(np.float32)
            config = config | {"architectures": ["HF_ColBERT"]}
            write_json(folder / "artifact.metadata", self.about)
        else:
            write_modules(folder, *self.modules)
            file = folder / "modules.json"
            listed = file.read_text(encoding="utf-8")
            listed = listed.replace("sentence_transformers.models.Dense", f"{self.package}.Dense")
            listed = listed.replace("sentence_transformers.models.Multi", f"{MASKS}.Multi")
            file.write_text(listed, encoding="utf-8")
            write_json(folder / "config_sentence_transformers.json", self.about)
            write_json(folder / "sentence_bert_config.json", self.settings)
        write_json(folder / "config.json", config)
        save_file(tensors, folder / "model.safetensors")
        write_tokenizer(folder, self.markers, lower=self.lower)
        return folder


def write_tokenizer(folder: Path, markers: tuple[str, ...], *, lower: bool) -> None:
    """A tokeniser of words and letters, with punctuation, a mask token and the markers."""
    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens([*TOKENS[:4], "[MASK]"])
    tokenizer.add_tokens([AddedToken(marker, normalized=True) for marker in markers])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    stated = {f"{name}_token": token for name, token in names.items()}
    write_json(folder / "tokenizer_config.json", about | stated)


PYLATE = {
    "model_type": "ColBERT",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 16,
    "document_length": 40,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(".!?"),
    "similarity_fn_name": "MaxSim",
    "prompts": {},
}
EVERYWHERE = ["query", "document"]
TOKEN_LEVEL = {"module_input_name": "token_embeddings"}
MODERNBERT = Case(CASES["modernbert"].config | {"local_attention": 32}, CASES["modernbert"].shapes)
XLM_ROBERTA = Case(CASES["xlm-roberta"].config | {"pad_token_id": 0}, CASES["xlm-roberta"].shapes)

COLBERTS = {
    "stanford": Colbert(
        CASES["bert"], {"query_maxlen": 12, "doc_maxlen": 40, "mask_punctuation": True}
    ),
    "stanford-bare": Colbert(CASES["bert"], {"attend_to_mask_tokens": True}),
    "pylate": Colbert(
        CASES["bert"], PYLATE, (dense(WIDTH, 8),), markers=MARKERS, package="pylate.models.Dense"
    ),
    "pylate-modernbert": Colbert(
        MODERNBERT,
        PYLATE | {"skiplist_words": None, "document_length": None},
        (dense(WIDTH, 32), dense(32, 32, use_residual=True), dense(32, 12, use_residual=True)),
        {"max_seq_length": 50, "do_lower_case": True},
        markers=MARKERS,
        lower=False,
    ),
    "pylate-attending": Colbert(
        MODERNBERT,
        PYLATE | {"attend_to_expansion_tokens": True, "query_length": 24},
        (dense(WIDTH, 8),),
        markers=MARKERS,
    ),
    "pylate-unexpanded": Colbert(
        XLM_ROBERTA,
        PYLATE
        | {"do_query_expansion": False, "query_prefix": "hello ", "document_prefix": ""},
        (dense(WIDTH, 8, bias=True), dense(8, 6, activation_function=TANH)),
    ),
    "multi-vector": Colbert(
        CASES["distilbert"],
        {
            "model_type": "MultiVectorEncoder",
            "prompts": {"query": "[unused0] ", "document": "[unused1] "},
            "similarity_fn_name": "meanmaxsim",
        },
        (
            dense(WIDTH, 8, **TOKEN_LEVEL),
            ("MultiVectorMask", {"skiplist_words": [".", "a"], "skiplist_tasks": EVERYWHERE}),
            ("Normalize", TOKEN_LEVEL),
        ),
        {
            "query_expansion": {"strategy": "min", "length": 10},
            "query_length": 18,
            "document_length": 30,
        },
    ),
}  # fmt: skip
"""By layout."""
