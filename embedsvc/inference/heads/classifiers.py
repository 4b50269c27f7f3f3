"""The last layers of transformers' classifiers, by the class that saved a checkpoint.

Each begins with the pooling of hidden states. Names of tensors are the checkpoints' own, without
what holds the backbone ("bert.").
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import msgspec

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.modules import LogitScore
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.checkpoints.tokenizer_files import read_tokenizer
from embedsvc.inference.heads.steps import NONE, RowStep, layer_norm, linear
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import Eps
from embedsvc.inference.ops.activations import Activation
from embedsvc.wording.msgspec_errors import plain_types

T = TypeVar("T", bound=msgspec.Struct)


class Layers(NamedTuple):
    """What a classifier does with the hidden states of a text."""

    pooling: Pooling
    steps: tuple[RowStep, ...]
    """From pooled rows (n, D) to scores (n, labels)."""


class Reader:
    """Takes the layers of one classifier out of its checkpoint. Raises `CheckpointError`."""

    def __init__(self, tensors: Tensors, checkpoint: Checkpoint, labels: int) -> None:
        self.tensors = tensors
        self.checkpoint = checkpoint
        self.labels = labels
        config = checkpoint.config
        self.width: int = config["dim"] if "hidden_size" not in config else config["hidden_size"]

    def config(self, kind: type[T]) -> T:
        """The fields of config.json that a head depends on."""
        try:
            return msgspec.convert(self.checkpoint.config, kind)
        except msgspec.ValidationError as error:
            raise self.checkpoint.error(f"config.json: {plain_types(str(error))}") from None

    def dense(self, name: str, activation: Activation, *, bias: bool = True) -> RowStep:
        """A layer D -> D."""
        return self._linear(name, self.width, activation, bias=bias)

    def out(self, name: str, *, bias: bool = True) -> RowStep:
        """The layer D -> labels."""
        return self._linear(name, self.labels, NONE, bias=bias)

    def norm(self, name: str, eps: float, *, bias: bool) -> RowStep:
        """A layer norm."""
        weight = self.tensors.take(f"{name}.weight", self.width)
        return layer_norm(
            weight, self.tensors.take(f"{name}.bias", self.width) if bias else None, eps
        )

    def _linear(self, name: str, outputs: int, activation: Activation, *, bias: bool) -> RowStep:
        weight = self.tensors.take(f"{name}.weight", outputs, self.width)
        shift = self.tensors.take(f"{name}.bias", outputs) if bias else None
        return linear(weight, shift, activation)


TANH = Activation("tanh")


def _bert(read: Reader) -> Layers:
    """BERT's pooler (Devlin et al., 2018, arXiv:1810.04805) and a last layer."""
    return Layers("cls", (read.dense("pooler.dense", TANH), read.out("classifier")))


def _roberta(read: Reader) -> Layers:
    return Layers("cls", (read.dense("classifier.dense", TANH), read.out("classifier.out_proj")))


def _distilbert(read: Reader) -> Layers:
    return Layers("cls", (read.dense("pre_classifier", Activation("relu")), read.out("classifier")))


def _gte(read: Reader) -> Layers:
    """BERT's, whose pooler some checkpoints lack."""
    if "pooler.dense.weight" in read.tensors:
        return _bert(read)
    return Layers("cls", (read.out("classifier"),))


def _albert(read: Reader) -> Layers:
    """BERT's, whose pooler has no name of its own."""
    return Layers("cls", (read.dense("pooler", TANH), read.out("classifier")))


def _electra(read: Reader) -> Layers:
    gelu = Activation("gelu")
    return Layers("cls", (read.dense("classifier.dense", gelu), read.out("classifier.out_proj")))


class ContextPooler(msgspec.Struct, frozen=True):
    """The fields of config.json that the head of a DeBERTa depends on."""

    hidden_size: int
    pooler_hidden_size: int | None = None
    pooler_hidden_act: HiddenAct = "gelu"


def _deberta(read: Reader) -> Layers:
    """BERT's with another activation (He et al., 2020, arXiv:2006.03654)."""
    config = read.config(ContextPooler)
    if config.pooler_hidden_size not in (None, read.width):
        raise read.checkpoint.error(
            f"config.json: `pooler_hidden_size` of {config.pooler_hidden_size} is not "
            f"`hidden_size`, {read.width}"
        )
    activation = read_activation(read.tensors, config.pooler_hidden_act, "pooler.activation")
    return Layers("cls", (read.dense("pooler.dense", activation), read.out("classifier")))


class ModernBertHead(msgspec.Struct, frozen=True):
    """The fields of config.json that the head of a ModernBERT depends on."""

    norm_eps: Eps
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_bias: bool = False
    classifier_activation: HiddenAct = "gelu"
    norm_bias: bool = False


def _modernbert(read: Reader) -> Layers:
    """A layer and a norm after the pooling (Warner et al., 2024, arXiv:2412.13663)."""
    config = read.config(ModernBertHead)
    activation = read_activation(read.tensors, config.classifier_activation, "head.act")
    steps = (
        read.dense("head.dense", activation, bias=config.classifier_bias),
        read.norm("head.norm", config.norm_eps, bias=config.norm_bias),
        read.out("classifier"),
    )
    return Layers(config.classifier_pooling, steps)


def _decoder(read: Reader) -> Layers:
    """One row for each label, for the state of the last token."""
    return Layers("last_token", (read.out("score", bias=False),))


def logit_score(tensors: Tensors, checkpoint: Checkpoint, tokens: LogitScore) -> Layers:
    """What a decoder's last layer makes of the state of the last token, for one token or two.

    Of that layer, which has a row for each token, no more than their rows is read.
    """
    config = checkpoint.config
    tied = config.get("tie_word_embeddings", False) or "lm_head.weight" not in tensors
    name = "embed_tokens.weight" if tied else "lm_head.weight"
    whole = checkpoint.tensors()  # the architecture has taken the word embeddings
    chosen = [_id(checkpoint, token) for token in (tokens.true, tokens.false) if token is not None]
    rows = whole.rows(name, chosen, config["vocab_size"], config["hidden_size"])
    weight = rows[:1] - rows[1:] if len(rows) > 1 else rows
    return Layers("last_token", (linear(weight, None),))


def _id(checkpoint: Checkpoint, token: int | str) -> int:
    """The id of a token."""
    if isinstance(token, int):
        return token
    found = read_tokenizer(checkpoint.card.id, checkpoint.folder).token_to_id(token)
    if found is None:
        raise checkpoint.error(f"tokenizer.json: there is no token `{token}`, to answer with")
    return found


class Classifier(NamedTuple):
    """A class of transformers."""

    layers: Callable[[Reader], Layers]
    model_types: tuple[str, ...]
    """Those whose backbones it is for."""


CLASSIFIERS = {
    "AlbertForSequenceClassification": Classifier(_albert, ("albert",)),
    "ElectraForSequenceClassification": Classifier(_electra, ("electra",)),
    "BertForSequenceClassification": Classifier(_bert, ("bert",)),
    "JinaBertForSequenceClassification": Classifier(_bert, ("bert", "jina_bert")),
    "RobertaForSequenceClassification": Classifier(_roberta, ("roberta",)),
    "XLMRobertaForSequenceClassification": Classifier(_roberta, ("xlm-roberta",)),
    "CamembertForSequenceClassification": Classifier(_roberta, ("camembert",)),
    "MPNetForSequenceClassification": Classifier(_roberta, ("mpnet",)),
    "DebertaV2ForSequenceClassification": Classifier(_deberta, ("deberta-v2",)),
    "DistilBertForSequenceClassification": Classifier(_distilbert, ("distilbert",)),
    "ModernBertForSequenceClassification": Classifier(_modernbert, ("modernbert",)),
    "NewForSequenceClassification": Classifier(_gte, ("new",)),
    "GteForSequenceClassification": Classifier(_gte, ("gte",)),
    "Qwen3ForSequenceClassification": Classifier(_decoder, ("qwen3",)),
}
"""By the name in `architectures` of config.json."""
