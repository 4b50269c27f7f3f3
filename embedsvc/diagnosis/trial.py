"""Whether a checkpoint would load, and how it would be used, told without reading its weights.

What is not on this disk is not downloaded: config.json and the hub's list of files have to do.
"""

import re
from typing import Any, NamedTuple

import msgspec

from embedsvc.catalog.cards import Card, Dtype
from embedsvc.checkpoints.checkpoint import CLASSIFIER, Checkpoint, open_checkpoint
from embedsvc.checkpoints.config_defaults import completed
from embedsvc.checkpoints.files import Files, as_array
from embedsvc.checkpoints.sources import find_checkpoint, is_here, look_ahead
from embedsvc.errors import CheckpointError
from embedsvc.inference.heads import heads_of
from embedsvc.inference.heads.classifiers import CLASSIFIERS
from embedsvc.inference.models import fallback, find_architecture, nearest_kind, read_config
from embedsvc.inference.plan import make_plan
from embedsvc.wording.msgspec_errors import plain_types
from embedsvc.wording.quantities import bytes_in_words

PRECISIONS: tuple[tuple[str, Dtype, bool], ...] = (
    ("float32", "float32", False),
    ("bfloat16 on a CPU", "bfloat16", False),
    ("int8 on a CPU", "int8", False),
    ("16 bits on a GPU", "bfloat16", True),
)
"""What is told, the dtype, and whether it is on a GPU."""
BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
LICENCE = re.compile(r"^license(?:_name)?:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)
FRONT = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)


class Trial(NamedTuple):
    """What was found out about a checkpoint."""

    loads: bool
    facts: dict[str, str]
    """What is told of it, by what that is, in the order in which it is read."""
    card: str
    """The card to paste into models.toml."""


def try_checkpoint(card: Card) -> Trial:
    """Look at the card's files, or ahead at what the hub tells of them.

    Raises `CheckpointError` where there is nothing to look at.
    """
    if not is_here(card):
        return _ahead(card, *look_ahead(card))
    folder = find_checkpoint(card, download=False)
    facts = {"files": str(folder)}
    licence = _licence(Files(card.id, folder))
    try:
        checkpoint = open_checkpoint(card)
        heads = heads_of(checkpoint)
        memory = {
            name: make_plan(checkpoint, dtype, backend="mlx" if gpu else "native").size
            for name, dtype, gpu in PRECISIONS
        }
    except CheckpointError as error:
        facts |= {"loads": f"no: {error}", "licence": licence}
        return Trial(False, facts, _written(card, "# pooling = ...  as the original has it"))
    facts |= {"loads": "yes", **_uses(checkpoint, heads), **_sizes(memory), "licence": licence}
    return Trial(True, facts, _written(card))


def _uses(checkpoint: Checkpoint, heads: tuple[str, ...]) -> dict[str, str]:
    """How a checkpoint would be used."""
    facts = {"kind": checkpoint.model_type, "task": checkpoint.task, "heads": ", ".join(heads)}
    if checkpoint.pooling:
        source = checkpoint.pooling_source or "its modules"
        facts["pooling"] = f"{', '.join(checkpoint.pooling)} (by {source})"
        facts["normalised"] = "yes" if checkpoint.normalize else "no"
    if checkpoint.scoring is not None:
        facts["labels"] = ", ".join(checkpoint.scoring.labels)
    if checkpoint.adapter is not None:
        facts["adapter"] = f"{checkpoint.adapter.folder}, merged into {checkpoint.folder}"
    facts["longest text"] = f"{checkpoint.max_tokens} tokens"
    names = ", ".join(f"{name} ({text!r})" for name, text in sorted(checkpoint.prompts.items()))
    default = f"; by default {checkpoint.default_prompt!r}" if checkpoint.default_prompt else ""
    facts["prompts"] = (names or "none") + default
    return facts


def _ahead(card: Card, config: dict[str, Any], stored: int) -> Trial:
    """What config.json and the size of the weights tell of files that are not here."""
    facts = {"files": f"{card.repo}, not on this disk: {bytes_in_words(stored)} of weights"}
    known = completed(config)
    kind = str(known.get("model_type"))
    class_name = str(next(iter(as_array(known.get("architectures")) or ()), ""))
    problem = None if config else "no config.json at its root: only its files can tell"
    try:
        architecture = find_architecture(kind, known)
        if config and architecture is None:
            fallback.check(kind, nearest_kind(kind, known))
        elif config and architecture is not None:
            read_config(architecture, known)
        if class_name.endswith(CLASSIFIER) and class_name not in CLASSIFIERS:
            problem = f"config.json: `{class_name}` is not supported"
    except msgspec.ValidationError as error:
        problem = f"config.json: {plain_types(str(error))}"
    except CheckpointError as error:
        problem = str(error)
    facts["loads"] = f"no: {problem}" if problem else "yes, as far as config.json tells"
    facts["kind"] = kind
    facts["heads"] = (
        "scores" if class_name.endswith(CLASSIFIER) else "vector, if its modules say so"
    )
    facts["pooling"] = "said by its files, once they are here"
    dtype = str(known.get("dtype") or known.get("torch_dtype") or "float32")
    numbers = stored / BYTES.get(dtype, 4.0)
    facts |= _sizes(
        {
            "float32": int(numbers * 4),
            "bfloat16 on a CPU": int(numbers * 2),
            "int8 on a CPU": int(numbers * (1 + 4 / 64)),
            "16 bits on a GPU": int(numbers * 2),
        }
    )
    facts["licence"] = "said by its README.md, once it is here"
    return Trial(problem is None, facts, _written(card))


def _sizes(memory: dict[str, int]) -> dict[str, str]:
    return {f"memory in {name}": bytes_in_words(size) for name, size in memory.items()}


def _licence(files: Files) -> str:
    """What the front matter of README.md says."""
    text = (files.read_bytes("README.md") or b"").decode(errors="replace")
    front = FRONT.match(text)
    found = LICENCE.search(front[1]) if front else None
    return found[1] if found else "not said: see where it comes from"


def _written(card: Card, *more: str) -> str:
    """The card as it stands in models.toml."""
    lines = [f"[models.{_quoted(card.id)}]"]
    if card.path is not None:
        lines.append(f"path = {_quoted(str(card.path.absolute()))}")
    if card.repo is not None:
        lines.append(f"repo = {_quoted(card.repo)}")
    if card.adapter is not None:
        lines.append(f"adapter = {_quoted(card.adapter)}")
    return "\n".join([*lines, *more])


def _quoted(text: str) -> str:
    """A string of TOML, whose escapes are JSON's."""
    return msgspec.json.encode(text).decode()
