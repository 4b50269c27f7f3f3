"""A checkpoint: a folder with weights, and what its files say of how to make vectors with them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.cards import Card, Pooling, Prompts
from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.modules import Modules, Normalize, Step, read_modules
from embedsvc.checkpoints.sources import find_checkpoint, sha256
from embedsvc.checkpoints.tensors import WEIGHTS, Tensors, weight_files
from embedsvc.errors import CheckpointError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentence_bert_config.json",
)
STATIC_MAX_TOKENS = 32768
"""Where nothing limits a text: it is looked up token by token."""
POSITIONS_FROM = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Kinds that number positions from the padding token's id on, so that some are never reached."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A card with its gaps filled from the checkpoint's files."""

    card: Card
    root: Path
    """All of its files."""
    folder: Path
    """In it, that of weights, config.json and tokeniser."""
    model_type: str
    config: dict[str, Any]
    """config.json, for the architecture to read."""
    pooling: tuple[Pooling, ...]
    """Set side by side if there are several."""
    steps: tuple[Step, ...]
    """What is done to pooled vectors, before `normalize`."""
    normalize: bool
    special_tokens: bool
    """Whether the tokeniser adds any."""
    max_tokens: int
    """Tokens in one text, special tokens included."""
    prompts: Prompts

    def fingerprint(self, *how: str) -> str:
        """A digest of all that a vector depends on: files and card, and `how` it is computed."""
        parts = [*_digests(self.card.id, self.folder), *how]
        parts += [sha256(f) for name in TOKENIZER_FILES if (f := self.folder / name).is_file()]
        for step in self.steps:
            parts.append(type(step).__name__)
            if not isinstance(step, Normalize):
                parts += _digests(self.card.id, step.folder)
        parts.append(repr((self.pooling, self.normalize, sorted(self.prompts.items()))))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def tensors(self, taken: Callable[[int], None] | None = None) -> Tensors:
        """The weights, to be taken one by one; `taken` is told the bytes of each."""
        return Tensors(self.card.id, self.folder, taken)


def open_checkpoint(card: Card) -> Checkpoint:
    """Find the card's files and read all but the weights.

    Pooling comes from the card, else from `modules.json` and the pooling module's config.json;
    `normalize` likewise, and is true where there is no `modules.json`. The limit is the card's,
    else sentence_bert_config.json's, else the tokeniser's, and never more than there are positions.

    Raises `CheckpointError` that names the model and the file, also if none states the pooling.
    """
    root = Files(card.id, find_checkpoint(card))
    if card.sha256 is not None:
        _check_sha256(card, root.folder / WEIGHTS, card.sha256)
    modules = read_modules(root) or _no_modules(root)
    files = Files(card.id, modules.folder)
    config = _config(files, modules)
    pooling = (card.pooling,) if isinstance(card.pooling, str) else card.pooling
    pooling = pooling or modules.pooling
    if not pooling:
        raise CheckpointError(
            f"model `{card.id}`: neither its card nor {root.folder} says how to pool; "
            "give the card a `pooling`"
        )
    if not modules.include_prompt:
        raise root.error("modules.json", "a pooling without the prompt (`include_prompt` = false)"
                         " is not supported")  # fmt: skip
    steps, normalize = _steps(card, modules)
    return Checkpoint(
        card=card,
        root=root.folder,
        folder=files.folder,
        model_type=str(config["model_type"]),
        config=config,
        pooling=pooling,
        steps=steps,
        normalize=normalize,
        special_tokens=not modules.static,
        max_tokens=_max_tokens(files, card, config, static=modules.static),
        prompts=_prompts(root) if card.prompts is None else card.prompts,
    )


def _no_modules(files: Files) -> Modules:
    """A folder without `modules.json`: of transformers or of model2vec."""
    static = files.read("config.json").get("model_type") == "model2vec"
    pooling: tuple[Pooling, ...] = ("mean",) if static else ()
    return Modules(files.folder, static, pooling, include_prompt=True, steps=(Normalize(),))


def _config(files: Files, modules: Modules) -> dict[str, Any]:
    config = files.read("config.json")
    if modules.static:
        return {**config, "model_type": "static"}
    if not config:
        raise files.error("config.json", "is missing")
    if "model_type" not in config:
        raise files.error("config.json", "does not say its `model_type`")
    mlx: dict[str, Any] = config.get("quantization") or {}
    other: dict[str, Any] = config.get("quantization_config") or {}
    way = other.get("quant_method") or mlx.get("mode", "affine")
    if way != "affine":
        raise files.error("config.json", f"weights quantised by `{way}` are not supported")
    return config


def _steps(card: Card, modules: Modules) -> tuple[tuple[Step, ...], bool]:
    """What comes after pooling, and whether vectors are normalised at the end of it."""
    steps = modules.steps
    normalize = isinstance(steps[-1], Normalize) if steps else False
    if normalize:
        steps = steps[:-1]
    return steps, normalize if card.normalize is None else card.normalize


def _max_tokens(files: Files, card: Card, config: dict[str, Any], *, static: bool) -> int:
    if card.max_tokens and not static:
        return card.max_tokens  # if the model has no positions for that, it does not load
    tokenizer = files.read("tokenizer_config.json").get("model_max_length")
    stated = files.read("sentence_bert_config.json").get("max_seq_length")
    limits = [stated or tokenizer, _positions(config)]
    if static:
        limits = [card.max_tokens, STATIC_MAX_TOKENS]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    # Tokenisers that know no limit state one of 10^30.
    if not known or min(known) > 10**9:
        raise CheckpointError(
            f"model `{card.id}`: neither its card nor {files.folder} says how long a text may be; "
            "give the card a `max_tokens`"
        )
    return min(known)


def _positions(config: dict[str, Any]) -> int | None:
    """Tokens that the model has positions for."""
    if config.get("rotary_scaling_factor"):  # beyond these, vectors would depend on other texts
        return config.get("max_trained_positions", 2048)
    stated = [config.get(key) for key in ("max_position_embeddings", "n_positions")]
    positions = max((n for n in stated if isinstance(n, int)), default=None)
    if positions is None or config["model_type"] not in POSITIONS_FROM:
        return positions
    padding: int | None = config.get("pad_token_id")
    return positions - (1 if padding is None else padding) - 1


def _prompts(files: Files) -> Prompts:
    config = files.read("config_sentence_transformers.json")
    stated: dict[str, str | None] = config.get("prompts") or {}
    return {name: text for name, text in stated.items() if text is not None}


def _digests(model: str, folder: Path) -> list[str]:
    """Of the weights, all shards of them, and of config.json."""
    files = [*weight_files(model, folder), folder / "config.json"]
    return [sha256(file) for file in files if file.is_file()]


def _check_sha256(card: Card, file: Path, expected: str) -> None:
    try:
        found = sha256(file)
    except OSError as error:
        raise CheckpointError(f"model `{card.id}`: {file}: {error.strerror}") from None
    if found != expected:
        raise CheckpointError(
            f"model `{card.id}`: {file} is not the file the card names: "
            f"its sha256 is {found}, the card says {expected}"
        )
