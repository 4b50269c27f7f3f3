"""What sentence-transformers keeps for a whole model: prompts, and how many dimensions it gives."""

from typing import NamedTuple

import msgspec

from embedsvc.bounds import MODEL_NAME
from embedsvc.catalog.cards import Card, Prompts
from embedsvc.checkpoints.files import Files

FILE = "config_sentence_transformers.json"


class Stated(NamedTuple):
    """What the file says, as far as a vector depends on it."""

    prompts: Prompts
    default: str
    """The text before an input where none is asked for."""
    truncate_dim: int | None
    """Dimensions that vectors are cut to, after all else."""


class _File(msgspec.Struct):
    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    truncate_dim: int | None = None


def read_prompts(files: Files, card: Card) -> Stated:
    """The prompts of a model; a default that the file names is looked up in the card's, if any.

    Raises `CheckpointError` that names the file and what is wrong in it.
    """
    stated = files.read_as(FILE, _File) or _File()
    prompts = {name: text for name, text in (stated.prompts or {}).items() if text is not None}
    for name in prompts:
        if len(name) > MODEL_NAME or not name.isprintable():
            raise files.error(FILE, f"{name[:MODEL_NAME]!r} is no name for a prompt")
    known = prompts if card.prompts is None else card.prompts
    default = stated.default_prompt_name
    if default is not None and default not in known and card.prompts is None:
        raise files.error(FILE, f"`default_prompt_name`: there is no prompt `{default}`")
    if stated.truncate_dim is not None and stated.truncate_dim < 1:
        raise files.error(FILE, f"`truncate_dim` must be at least 1, not {stated.truncate_dim}")
    return Stated(prompts, known.get(default or "", ""), stated.truncate_dim)
