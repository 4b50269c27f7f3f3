"""What the outputs of a classifier mean: its labels, and the function that they go through."""

from dataclasses import dataclass
from typing import Any, Literal

from embedsvc.bounds import VECTOR
from embedsvc.checkpoints.files import Files, as_object
from embedsvc.checkpoints.modules import LogitScore
from embedsvc.checkpoints.tensors import Tensors

Activation = Literal["identity", "sigmoid", "softmax", "tanh"]
NAMES: tuple[tuple[Activation, str], ...] = (
    ("identity", "linear.Identity"),
    ("sigmoid", "activation.Sigmoid"),
    ("softmax", "activation.Softmax"),
    ("tanh", "activation.Tanh"),
)
ACTIVATIONS: dict[str, Activation] = {
    f"torch.nn.{name}": activation
    for activation, module in NAMES
    for name in (f"modules.{module}", module.partition(".")[2])
}
"""Activations by the names of torch's classes, which are looked up here and never imported."""
LAST_LAYERS = ("classifier.out_proj.weight", "classifier.weight", "score.weight")
"""What classes of transformers call the weights that the outputs come from."""
MULTI_LABEL = "multi_label_classification"


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a classifier's outputs are to be read."""

    labels: tuple[str, ...]
    """The name of each output."""
    activation: Activation
    """What sentence-transformers puts outputs through."""
    multi_label: bool = False
    """Whether several labels may be true at once."""
    logit_score: LogitScore | None = None
    """The tokens whose logits are the score, of a decoder."""


def read_scoring(
    root: Files,
    config: dict[str, Any],
    outputs: int | None = None,
    logit_score: LogitScore | None = None,
) -> Scoring:
    """What a folder's files say of the outputs; `config` is its config.json.

    `outputs` is how many there are by a module or, where config.json is silent, by the weights.
    They have no names then.
    The activation is looked for where sentence-transformers looks, in its order. Raises
    `CheckpointError` that names the file and the key.
    """
    labels = _labels(root, config) if outputs is None else _unnamed(outputs)
    own = "config_sentence_transformers.json"
    nested = as_object(config.get("sentence_transformers")) or {}
    stated = (
        (own, root.read(own).get("activation_fn")),
        ("config.json", nested.get("activation_fn")),
        ("config.json", config.get("sbert_ce_default_activation_function")),
    )
    activation: Activation = "sigmoid" if len(labels) == 1 else "identity"
    for file, name in stated:
        if name is None:
            continue
        if str(name) not in ACTIVATIONS:
            raise root.error(file, f"activation `{name}` is not supported")
        activation = ACTIVATIONS[str(name)]
        break
    multi_label = config.get("problem_type") == MULTI_LABEL
    return Scoring(labels, activation, multi_label, logit_score)


def count_outputs(tensors: Tensors, config: dict[str, Any]) -> int | None:
    """How many outputs a classifier has by its last layer, where config.json does not say it, as
    that of jina-reranker-v1 does not."""
    if config.get("id2label") is not None or "num_labels" in config:
        return None
    last = next((name for name in LAST_LAYERS if name in tensors), None)
    shape = tensors.shape(last) if last is not None else ()
    return shape[0] if shape and 1 <= shape[0] <= VECTOR else None


def _labels(files: Files, config: dict[str, Any]) -> tuple[str, ...]:
    """The names of the outputs. Where none are stated there are two, as transformers has it."""
    names = config.get("id2label")
    if names is None:
        count = config.get("num_labels", 2)
        if type(count) is not int or not 1 <= count <= VECTOR:
            raise files.error("config.json", f"`num_labels` must be a number, not {count!r}")
        return _unnamed(count)
    by_number = {str(key): name for key, name in (as_object(names) or {}).items()}
    labels = [by_number.get(str(i)) for i in range(len(by_number))]
    if not labels or not all(isinstance(label, str) for label in labels):
        raise files.error("config.json", "`id2label` must name the labels 0, 1 and so on")
    return tuple(map(str, labels))


def _unnamed(count: int) -> tuple[str, ...]:
    """What transformers calls labels that have no names."""
    return tuple(f"LABEL_{i}" for i in range(count))
