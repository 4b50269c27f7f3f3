"""A checkpoint: a folder with weights, and what its files say of how to make vectors with them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedsvc.cards import Card, Pooling, Prompts
from embedsvc.errors import CheckpointError
from embedsvc.sources import WEIGHTS, find_checkpoint, sha256
from embedsvc.tensors import Tensors

POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last_token",
    "pooling_mode_max_tokens": "max",
    # as sentence-transformers 6 writes them, in one key `pooling_mode`
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last_token",
    "max": "max",
}
"""By sentence-transformers' names."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A card with its gaps filled from the checkpoint's files."""

    card: Card
    folder: Path
    model_type: str
    config: dict[str, Any]
    """config.json, for the architecture to read."""
    pooling: Pooling
    normalize: bool
    max_tokens: int
    """Tokens in one text, special tokens included; the tokeniser and the positions allow it."""
    prompts: Prompts

    def fingerprint(self, *how: str) -> str:
        """A digest of all that a vector of a list of token ids depends on, computed `how`."""
        parts = [
            self.card.sha256 or sha256(self.folder / WEIGHTS),
            sha256(self.folder / "config.json"),
            self.pooling,
            str(self.normalize),
            *how,
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def tensors(self) -> Tensors:
        """The weights, to be taken one by one."""
        return Tensors(self.card.id, self.folder / WEIGHTS)


def open_checkpoint(card: Card) -> Checkpoint:
    """Find the card's files and read all but the weights.

    Pooling comes from the card, else from `modules.json` and the pooling module's config.json;
    `normalize` likewise, and is true where there is no `modules.json`. The limit is the smallest of
    the card's or sentence_bert_config.json's, the tokeniser's and the number of positions.

    Raises `CheckpointError` that names the model and the file, also if none states the pooling.
    """
    folder = find_checkpoint(card)
    files = _Files(card.id, folder)
    config = files.read("config.json")
    if config is None:
        raise files.error("config.json", "is missing")
    modules = _modules(files)
    pooling = card.pooling or _pooling(files, modules)
    if pooling is None:
        raise CheckpointError(
            f"model `{card.id}`: neither its card nor {folder} says how to pool; "
            "give the card a `pooling`"
        )
    return Checkpoint(
        card=card,
        folder=folder,
        model_type=str(config.get("model_type")),
        config=config,
        pooling=pooling,
        normalize=_normalize(card, modules),
        max_tokens=_max_tokens(files, card, config),
        prompts=_prompts(files) if card.prompts is None else card.prompts,
    )


class _Files:
    """The JSON files of a checkpoint."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model = model
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON object, or None where there is no such file."""
        return self._load(name, dict[str, Any])

    def read_list(self, name: str) -> list[dict[str, Any]] | None:
        """A JSON array of objects, or None where there is no such file."""
        return self._load(name, list[dict[str, Any]])

    def error(self, name: str, message: str) -> CheckpointError:
        return CheckpointError(f"model `{self.model}`: {self.folder / name}: {message}")

    def _load(self, name: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode((self.folder / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(name, str(error.strerror)) from None
        except msgspec.MsgspecError as error:
            raise self.error(name, str(error)) from None


def _modules(files: _Files) -> dict[str, str] | None:
    """The sentence-transformers modules in order, as {kind: path}; None where there is no list."""
    listed = files.read_list("modules.json")
    if listed is None:
        return None
    modules = {str(m.get("type")).rpartition(".")[2]: str(m.get("path", "")) for m in listed}
    for kind in modules:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise files.error("modules.json", f"module `{kind}` is not supported")
    return modules


def _pooling(files: _Files, modules: dict[str, str] | None) -> Pooling | None:
    if modules is None or "Pooling" not in modules:
        return None
    name = f"{modules['Pooling']}/config.json"
    config = files.read(name) or {}
    named: Any = config.get("pooling_mode")
    if named is None:
        named = [key for key, on in config.items() if key.startswith("pooling_mode") and on is True]
    if not named:
        return None
    modes = [named] if isinstance(named, str) else [str(mode) for mode in named]
    pooling = POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if pooling is None:
        raise files.error(name, f"pooling `{' + '.join(modes)}` is not supported")
    return pooling


def _normalize(card: Card, modules: dict[str, str] | None) -> bool:
    if card.normalize is not None:
        return card.normalize
    return modules is None or "Normalize" in modules


def _max_tokens(files: _Files, card: Card, config: dict[str, Any]) -> int:
    positions = config.get("max_position_embeddings")
    tokenizer = (files.read("tokenizer_config.json") or {}).get("model_max_length")
    stated = (files.read("sentence_bert_config.json") or {}).get("max_seq_length")
    limits = [card.max_tokens or stated, tokenizer, positions]
    known = [int(limit) for limit in limits if isinstance(limit, int | float)]
    if not known:
        raise CheckpointError(
            f"model `{card.id}`: neither its card nor {files.folder} says how long a text may be; "
            "give the card a `max_tokens`"
        )
    return min(known)


def _prompts(files: _Files) -> Prompts:
    config = files.read("config_sentence_transformers.json") or {}
    stated: dict[str, str | None] = config.get("prompts") or {}
    return {name: text for name, text in stated.items() if text is not None}
