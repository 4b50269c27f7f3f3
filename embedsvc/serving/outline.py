"""What can be told of a model before it is loaded, or even downloaded: how large and deep it is."""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.files import as_object
from embedsvc.checkpoints.sources import is_here
from embedsvc.inference.plan import Plan

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
WIDTH = ("hidden_size", "dim", "n_embd", "d_model")
POSITIONS = ("max_position_embeddings", "n_positions")
"""The keys of config.json that say it, in the order in which they are looked for."""
KEPT = 1000
"""How many outlines are remembered."""
MOST = 1 << 31
"""No number of layers, sizes or tokens is that large."""


class Outline(NamedTuple):
    """Figures of a model. One that is not known, or that the model does not have, is 0."""

    stored: int = 0
    """Bytes of its weights in files."""
    size: int = 0
    """Bytes that its weights take in memory; of files that are not here, as `stored`."""
    layers: int = 0
    hidden_size: int = 0
    key_value_heads: int = 0
    max_tokens: int = 0
    model_type: str = ""
    quantization: str = ""
    """As in the names of repositories: `4bit`, `mxfp4`. Empty: not quantised."""


class LookUp(Protocol):
    """Finds the outline of a card's model. `Loader.outline` is one."""

    def __call__(self, card: Card, *, ask_hub: bool) -> Awaitable[Outline]: ...


class Outlines:
    """Looks outlines up, and remembers the last, each for as long as its card means those files."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._kept: dict[str, tuple[Card, Outline]] = {}

    async def find(self, card: Card, *, ask_hub: bool = False) -> Outline:
        """The outline of a card's model; of one whose files are not here if the hub may be asked.

        Raises `CheckpointError`.
        """
        outline = self.known(card)
        if outline is None:
            outline = await self._look_up(card, ask_hub=ask_hub)
            self.keep(card, outline)
        return outline

    def known(self, card: Card) -> Outline | None:
        """The outline of a card's model, if it was looked up before."""
        kept, outline = self._kept.get(card.id, (None, None))
        return outline if kept is not None and kept.loads_like(card) else None

    def keep(self, card: Card, outline: Outline) -> None:
        """Remember an outline, and forget another if there are too many."""
        self._kept.pop(card.id, None)
        self._kept[card.id] = card, outline
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]


def downloaded(cards: Iterable[Card]) -> set[str]:
    """The ids of the cards whose files are on this disk, which is looked at."""
    return {card.id for card in cards if is_here(card)}


def outline_of(plan: Plan) -> Outline:
    """The outline of a model whose files are here."""
    checkpoint = plan.checkpoint
    outline = outline_from(checkpoint.config, plan.stored)
    return outline._replace(
        size=plan.size, max_tokens=checkpoint.max_tokens, model_type=checkpoint.model_type
    )


def outline_from(config: Mapping[str, Any], stored: int) -> Outline:
    """The outline of a model of which only config.json is known, and how large its files are.

    >>> outline_from({"model_type": "bert", "num_hidden_layers": 6, "hidden_size": 384}, 90)
    Outline(stored=90, size=90, layers=6, hidden_size=384, key_value_heads=0, max_tokens=0, \
model_type='bert', quantization='')
    """
    kind = config.get("model_type")
    return Outline(
        stored=stored,
        size=stored,
        layers=_number(config, LAYERS),
        hidden_size=_number(config, WIDTH),
        key_value_heads=_number(config, ("num_key_value_heads",)),
        max_tokens=_number(config, POSITIONS),
        model_type=kind if isinstance(kind, str) else "",
        quantization=_quantization(as_object(config.get("quantization")) or {}),
    )


def _number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST:
            return value
    return 0


def _quantization(settings: Mapping[str, Any]) -> str:
    mode, bits = settings.get("mode", "affine"), settings.get("bits")
    if mode == "affine":
        return f"{bits}bit" if isinstance(bits, int) else ""
    return mode if isinstance(mode, str) else ""
