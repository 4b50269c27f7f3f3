"""A tiny random checkpoint of every classifier, and of every head that is made of modules.

`tests/reference/classifiers.py` records what transformers and sentence-transformers make of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from embedsvc.texts.item import Item
from tests.support.checkpoints import write_json, write_modules, write_tokenizer
from tests.support.shapes import WIDTH, Shapes, bert_shapes, gte_shapes, linear, norm
from tests.support.tiny import CASES, MODERNBERT, QWEN3, Case

TYPELESS = ("deberta-v2", "roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert", "qwen3")
"""Values of `model_type` whose models know no types of tokens, or have but one."""


@dataclass(frozen=True)
class Classifier(Case):
    """A checkpoint that gives scores, for texts or for pairs."""

    modules: tuple[tuple[str, dict[str, Any]], ...] = ()
    """What follows the backbone, where that is not in the checkpoint itself."""

    def write(self, folder: Path) -> Path:
        """The checkpoint, as transformers saves it, or as sentence-transformers does."""
        write_json(folder / "config.json", self.config)
        write_json(folder / "tokenizer_config.json", {"model_max_length": self.longest})
        write_tokenizer(folder)
        save_file(self.tensors(), folder / "model.safetensors")
        if self.modules:
            write_modules(folder, *self.modules)
            write_json(
                folder / "config_sentence_transformers.json",
                {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"},
            )
        return folder

    def items(self) -> list[Item]:
        """Texts, and the same as pairs: every third token belongs to the second text."""
        texts = self.texts()
        if self.config["model_type"] in TYPELESS:
            return [*map(Item, texts)]
        pairs = [Item(ids, (np.arange(len(ids)) % 3 == 2).astype(np.int32)) for ids in texts]
        return [*map(Item, texts), *pairs]


def named(*labels: str) -> dict[str, Any]:
    """The part of config.json that names labels."""
    return {"id2label": {str(i): label for i, label in enumerate(labels)}}


def inside(holder: str, shapes: Shapes) -> Shapes:
    """The tensors of a backbone as a class with a head holds it."""
    return {f"{holder}.{name}": shape for name, shape in shapes.items()}


def class_of(name: str, case: Case, *labels: str, **config: Any) -> dict[str, Any]:
    """The config.json of a case's backbone with a head."""
    own = {"architectures": [f"{name}ForSequenceClassification"]} | named(*labels)
    return case.config | own | config


def without(beginning: str, shapes: Shapes) -> Shapes:
    """Tensors whose names do not begin so."""
    return {name: shape for name, shape in shapes.items() if not name.startswith(beginning)}


def tanh_head(outputs: int) -> Shapes:
    return linear("classifier.dense", WIDTH, WIDTH) | linear("classifier.out_proj", WIDTH, outputs)


def modernbert_head(outputs: int, *, bias: bool = False) -> Shapes:
    return {
        **linear("head.dense", WIDTH, WIDTH, bias=bias),
        **norm("head.norm", bias=False),
        **linear("classifier", WIDTH, outputs),
    }


def ettin(width: int) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The modules of the Ettin rerankers."""
    sizes = {"in_features": width, "out_features": width, "bias": False}
    last = {"in_features": width, "out_features": 1, "bias": True}
    names = {"module_input_name": "sentence_embedding", "module_output_name": "scores"}
    gelu, identity = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
    return (
        ("Pooling", {"embedding_dimension": width, "pooling_mode": "cls"}),
        ("Dense", sizes | {"activation_function": gelu}),
        ("LayerNorm", {"dimension": width}),
        ("Dense", last | names | {"activation_function": identity}),
    )


CLASSIFIERS = {
    "bert-scores": Classifier(
        class_of("Bert", CASES["bert"], "no", "maybe", "yes"),
        inside("bert", bert_shapes(64, 2)) | linear("classifier", WIDTH, 3),
    ),
    "xlm-roberta-scores": Classifier(
        class_of("XLMRoberta", CASES["xlm-roberta"], "LABEL_0"),
        inside("roberta", without("pooler", bert_shapes(66, 1))) | tanh_head(1),
    ),
    "mpnet-scores": Classifier(
        class_of("MPNet", CASES["mpnet"], "a", "b"),
        inside("mpnet", without("pooler", CASES["mpnet"].shapes)) | tanh_head(2),
        longest=160,
    ),
    "albert-scores": Classifier(
        class_of("Albert", CASES["albert"], "no", "yes"),
        inside("albert", CASES["albert"].shapes) | linear("classifier", WIDTH, 2),
    ),
    "electra-scores": Classifier(
        class_of("Electra", CASES["electra"], "LABEL_0"),
        inside("electra", CASES["electra"].shapes) | tanh_head(1),
    ),
    "deberta-v2-scores": Classifier(
        class_of("DebertaV2", CASES["deberta-v2"], "a", "b", pooler_hidden_act="gelu"),
        inside("deberta", CASES["deberta-v2"].shapes)
        | linear("pooler.dense", WIDTH, WIDTH)
        | linear("classifier", WIDTH, 2),
        longest=60,
    ),
    "distilbert-scores": Classifier(
        class_of("DistilBert", CASES["distilbert"], "LABEL_0"),
        inside("distilbert", CASES["distilbert"].shapes)
        | linear("pre_classifier", WIDTH, WIDTH)
        | linear("classifier", WIDTH, 1),
    ),
    "modernbert-scores": Classifier(
        class_of("ModernBert", CASES["modernbert"], "LABEL_0", classifier_pooling="mean"),
        inside("model", CASES["modernbert"].shapes) | modernbert_head(1),
    ),
    "modernbert-biased-scores": Classifier(
        class_of(
            "ModernBert",
            CASES["modernbert"],
            "a",
            "b",
            classifier_bias=True,
            classifier_activation="silu",
        ),
        inside("model", CASES["modernbert"].shapes) | modernbert_head(2, bias=True),
    ),
    "modernbert-modules": Classifier(
        MODERNBERT | {"architectures": ["ModernBertModel"]},
        CASES["modernbert"].shapes,
        modules=ettin(WIDTH),
    ),
    "gte-scores": Classifier(
        class_of("New", CASES["gte"], "LABEL_0", type_vocab_size=2),
        inside("new", gte_shapes(2) | linear("pooler.dense", WIDTH, WIDTH))
        | linear("classifier", WIDTH, 1),
        reference=CASES["gte"].reference | named("LABEL_0") | {"type_vocab_size": 2},
    ),
    "jina_bert-scores": Classifier(
        class_of("JinaBert", CASES["jina_bert"], "LABEL_0"),
        inside("bert", CASES["jina_bert"].shapes) | linear("classifier", WIDTH, 1),
    ),
    "qwen3-scores": Classifier(
        QWEN3 | {"architectures": ["Qwen3ForSequenceClassification"], "pad_token_id": 0}
        | named("LABEL_0"),
        inside("model", CASES["qwen3"].shapes) | {"score.weight": (1, WIDTH)},
    ),
}  # fmt: skip
"""By what follows which backbone."""
