"""The sentence-transformers modules of a checkpoint: what is done to hidden states, in order.

`modules.json` lists them: a Transformer or a StaticEmbedding, a Pooling, and what follows it.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from embedsvc.bounds import MODULES, VECTOR
from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.pooling import read_pooling, switch
from embedsvc.checkpoints.steps import (
    Activation,
    Dense,
    LayerNorm,
    Normalize,
    RoundTanh,
    Step,
)
from embedsvc.checkpoints.tensors import Tensors

ROUND_TANH = "st_quantize.FlexibleQuantizer"
"""What modules.json of pplx-embed calls it. Its class is in their repositories."""

AMONG_WEIGHTS = {"gemma3_text": "dense.{}", "qwen3": "linear"}
"""The names of Dense layers among the weights of a model, by its `model_type`."""


@dataclass(frozen=True, slots=True)
class LogitScore:
    """Scores by the logits that a decoder gives of what follows a text: that of one token less that
    of another."""

    true: int | str
    """The token, by its id or as the vocabulary spells it."""
    false: int | str | None
    """None: nothing is subtracted."""


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of a model, as `modules.json` lists them."""

    folder: Path
    """The folder of the first module, with weights, configuration and tokeniser."""
    static: bool
    """Whether the first module is a StaticEmbedding, which has no special tokens."""
    pooling: tuple[Pooling, ...]
    """Empty if it is not stated, as where a conversion left out the folder of the pooling module.
    Several are put side by side."""
    include_prompt: bool
    """Whether tokens of the prompt are pooled too."""
    steps: tuple[Step, ...]
    """The modules after the pooling."""
    logit_score: LogitScore | None = None
    """What gives scores, where the first module is a whole decoder."""
    of_tokens: bool = False
    """Whether the steps are for the vector of each token; see `late_interaction`."""

    @property
    def labels(self) -> int | None:
        """How many scores they give; None where they give vectors, or only the first module knows
        what it gives."""
        if self.logit_score is not None:
            return 1
        last = self.steps[-1] if self.steps else None
        return last.outputs if isinstance(last, Dense) and last.scores else None


def read_modules(files: Files) -> Modules | None:
    """The modules of a folder; None where there is no `modules.json`.

    Raises `CheckpointError` that names a module which is not supported, or is out of place.
    """
    listed = files.read_as("modules.json", list[dict[str, Any]])
    if listed is None:
        return None
    if len(listed) > MODULES:
        raise files.error("modules.json", f"lists {len(listed)} modules, more than {MODULES}")
    kinds = [module_kind(files, module) for module in listed]
    first = files.inside(module_folder(files, listed[0])) if listed else files
    static = kinds[:1] == ["StaticEmbedding"]
    if kinds[:1] != ["Transformer"] and not static:
        raise files.error("modules.json", "the first module must be a Transformer")
    if kinds[1:] == ["LogitScore"]:
        score = _logit_score(files.inside(module_folder(files, listed[1])))
        return Modules(first.folder, static, (), include_prompt=True, steps=(), logit_score=score)
    pooling: tuple[Pooling, ...] = ("mean",) if static else ()
    pooled, include_prompt = static, True
    steps: list[Step] = []
    dense = dense_among_weights(first)
    for kind, module in zip(kinds[1:], listed[1:], strict=True):
        inside = files.inside(module_folder(files, module))
        if kind == "Pooling" and not pooled:
            pooled = True
            if inside.has("config.json"):
                pooling, include_prompt = read_pooling(inside, inside.read("config.json"))
        elif kind == "Dropout":  # does nothing when embedding
            pass
        elif kind == "LogitScore":
            raise files.error("modules.json", "module `LogitScore` must follow the first alone")
        elif not pooled:
            raise files.error("modules.json", f"module `{kind}` comes before the pooling")
        elif kind == "Dense":
            steps.append(dense.pop(0) if dense else read_dense(inside))
        elif kind == "LayerNorm":
            steps.append(LayerNorm(inside.folder, _size(inside, "dimension")))
        elif kind == ROUND_TANH:
            steps.append(RoundTanh())
        elif kind == "Normalize":
            read_module(inside, "sentence_embedding")
            steps.append(Normalize())
        else:
            raise files.error("modules.json", f"module `{kind}` comes twice")
    if any(isinstance(step, Dense) and step.scores for step in steps[:-1]):
        raise files.error("modules.json", "a module comes after the one that gives scores")
    end = len(steps) - (steps[-1:] == [Normalize()])
    steps[end:end] = dense  # those that modules.json does not list
    return Modules(first.folder, static, pooling, include_prompt, tuple(steps))


def dense_among_weights(files: Files) -> list[Dense]:
    """The Dense layers that are among the weights of the model, in the order in which they are
    applied: mlx-embeddings' converter puts those of a Gemma 3 there, and voyage-4-nano has one.
    None has an activation."""
    found: list[Dense] = []
    kind = files.read("config.json").get("model_type")
    if not isinstance(kind, str) or kind not in AMONG_WEIGHTS:
        return found
    tensors = Tensors(files.model, files.folder)
    inputs = _size(files, "hidden_size")
    for number in range(MODULES):
        name = AMONG_WEIGHTS[kind].format(number)
        if f"{name}.weight" not in tensors or any(name == each.name for each in found):
            break
        shape = tensors.shape(f"{name}.weight")
        if len(shape) != 2:
            raise tensors.error(f"tensor `{name}.weight` has shape {shape}, and must be a matrix")
        bias = f"{name}.bias" in tensors
        found.append(
            Dense(files.folder, inputs, shape[0], bias, "Identity", False, name, own_folder=False)
        )
        inputs = shape[0]
    return found


def module_kind(files: Files, module: dict[str, Any], *others: str) -> str:
    """The name of a module's class, without its package, which differs between versions.

    Raises `CheckpointError` if the class is not supported, nor one of the `others`.
    """
    type_ = str(module.get("type"))
    if type_ == ROUND_TANH:
        return type_
    package, _, kind = type_.rpartition(".")
    known = (
        "Transformer", "StaticEmbedding", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout",
        "LogitScore",
    )  # fmt: skip
    names = ("sentence_transformers", "pylate")
    if kind not in (*known, *others) or package.partition(".")[0] not in names:
        raise files.error("modules.json", f"module `{type_}` is not supported")
    return kind


def module_folder(files: Files, module: dict[str, Any]) -> str:
    """The folder of a module, within that of the model. Raises `CheckpointError`."""
    stated = module.get("path", "")
    if not isinstance(stated, str) or not stated.isprintable():
        raise files.error("modules.json", f"`path` must be the name of a folder, not {stated!r}")
    path = PurePosixPath(stated)
    if path.is_absolute() or ".." in path.parts:
        raise files.error("modules.json", f"path `{path}` leaves the folder")
    return str(path)


def read_dense(files: Files, input_name: str = "sentence_embedding") -> Dense:
    """A Dense module, of what goes by that name between the modules."""
    scores = files.read("config.json").get("module_output_name") == "scores"
    keys = ("module_input_name",) if scores else ("module_input_name", "module_output_name")
    config = read_module(files, input_name, *keys)
    stated = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = stated.rpartition(".")[2]
    if not stated.startswith("torch.nn.") or activation not in get_args(Activation):
        raise files.error("config.json", f"activation `{stated}` is not supported")
    return Dense(
        files.folder,
        _size(files, "in_features"),
        _size(files, "out_features"),
        switch(files, config, "bias", default=True),
        activation,  # pyright: ignore[reportArgumentType] - checked above
        switch(files, config, "use_residual"),
        scores=scores,
    )


def _logit_score(files: Files) -> LogitScore:
    config = files.read("config.json")
    name = config.get("module_input_name", "causal_logits")
    if name != "causal_logits":
        raise files.error("config.json", f"`module_input_name` = `{name}` is not supported")
    true, false = config.get("true_token_id"), config.get("false_token_id")
    for key, token in (("true_token_id", true), ("false_token_id", false)):
        missing = token is None and key == "false_token_id"
        if not missing and (type(token) is not int or not 0 <= token < 1 << 31):
            raise files.error("config.json", f"`{key}` must be the id of a token, not `{token}`")
    return LogitScore(true, false)  # pyright: ignore[reportArgumentType] - checked above


def _size(files: Files, key: str) -> int:
    """The value of a key of config.json that has to be the size of a vector."""
    size = files.read("config.json").get(key)
    if type(size) is not int or not 1 <= size <= VECTOR:
        raise files.error("config.json", f"`{key}` must be a size, not `{size}`")
    return size


def read_module(files: Files, name: str, *keys: str) -> dict[str, Any]:
    """The config.json of a module. Raises `CheckpointError` if the module would work on anything
    but what goes by that name, or put anything else in its place."""
    config = files.read("config.json")
    for key in keys or ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, name):
            raise files.error("config.json", f"`{key}` = `{config[key]}` is not supported")
    return config
