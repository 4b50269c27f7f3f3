"""config_sentence_transformers.json: the prompts of a model, and how many dimensions it gives."""

from typing import NamedTuple

import msgspec

from embedsvc.bounds import MODEL_NAME
from embedsvc.catalog.cards import Card, Prompts
from embedsvc.checkpoints.files import Files

FILE = "config_sentence_transformers.json"


class Stated(NamedTuple):
    """The parts of the file that a vector depends on."""

    prompts: Prompts
    default: str
    """The text that is put before an input where a request asks for no prompt."""
    truncate_dim: int | None
    """Dimensions that vectors are cut to after all modules; None: they are not cut."""


class _File(msgspec.Struct):
    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    truncate_dim: int | None = None


def read_prompts(files: Files, card: Card) -> Stated:
    """What the file states. A default is looked up in the card's prompts, if the card has any.

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
