"""The cards: which models exist, where their files are, and what their files do not say.

What a card leaves out is read from the checkpoint's own sentence-transformers files (see
`checkpoints/checkpoint.py`).
"""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from embedsvc.bounds import AD_HOC_SPELLINGS
from embedsvc.catalog.names import Known, Names, spelled
from embedsvc.errors import ModelNotFound
from embedsvc.wording.quantities import Seconds

Pooling = Literal["mean", "cls", "last_token", "max", "mean_sqrt_len", "weighted_mean"]
NOT_LOADED = (
    "aliases",
    "prompt_aliases",
    "dimensions",
    "layer_norm",
    "token_ids",
    "truncate",
    "preload",
    "pin",
    "keep_alive",
)
"""Fields that are read whenever they are needed. The others are read when the model is loaded."""
OF_THE_MODEL = (
    "task",
    "pooling",
    "normalize",
    "max_tokens",
    "dimensions",
    "layer_norm",
    "prompts",
    "plain_tokens",
    "token_ids",
    "truncate",
    "dtype",
)
"""Fields that are the same of a model in another precision. The others say where its files are, or
what it is called, and how long it stays."""
FloatDtype = Literal["float32", "float16", "bfloat16"]
Dtype = Literal["float32", "float16", "bfloat16", "int8"]
Prompts = dict[str, str]
"""Texts to put before an input, by the name that a client asks for. Spaces at the end matter."""
TokenIdsMeaning = Literal["cl100k_base", "model", "reject"]
Truncate = Literal["error", "end", "start", "chunk"]
Task = Literal["embed", "rerank", "classify", "sparse"]
"""What a model gives: vectors, one score for a pair of texts, scores for several labels, or sparse
vectors alone."""


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. It has one of `path`, `package` and `repo`, or several, tried in that order."""

    ad_hoc: ClassVar[bool] = False
    """Whether a client asked for the model by its name, so that nobody vouches for its files."""

    id: str
    path: Path | None = None
    """A folder. A relative one is looked for beside the cards file."""
    package: str | None = None
    """An installed Python package and a folder in it: "package/folder"."""
    repo: str | None = None
    """A Hugging Face repository."""
    revision: str | None = None
    """The repository's commit, tag or branch."""
    adapter: str | None = None
    """A LoRA adapter in PEFT's layout, a folder or a Hugging Face repository, that is merged into
    the weights. A model that is an adapter alone needs no key: it names its base."""
    like: str | None = None
    """The id of another card, in this file or of those that are shipped, of the same model in
    another precision. What this card leaves out of how the model is used is said there."""
    aliases: tuple[str, ...] = ()
    """Other names for the model."""
    task: Task | None = None
    """What the model is for: "embed", "rerank", "classify" or "sparse". Default: what its files
    say, of which "sparse" goes before the rest."""
    pooling: Pooling | tuple[Pooling, ...] | None = None
    """How the hidden states of a text become one vector. Of several ways, the results are
    put side by side."""
    normalize: bool | None = None
    """Whether vectors are brought to length 1."""
    max_tokens: int | None = None
    """The longest text that the model takes, special tokens and prompt included."""
    dimensions: tuple[int, ...] = ()
    """The Matryoshka sizes that vectors may be cut to."""
    layer_norm: bool = False
    """Whether vectors are layer-normalised before they are cut to one of `dimensions`."""
    prompts: Prompts | None = None
    """Texts to put before an input, by the name that a request asks for: {query = "query: "}."""
    prompt_aliases: dict[str, str] = {}
    """Other names for the model with one of its prompts: {e5-query = "query"}."""
    plain_tokens: tuple[str, ...] = ()
    """Tokens that were added to the tokeniser without vectors for them. They are read as ordinary
    text."""
    token_ids: TokenIdsMeaning = "cl100k_base"
    """What token ids in a request mean: OpenAI's tokens, this model's own, or that they are
    refused."""
    truncate: Truncate | None = None
    """What becomes of an input that is too long, where the request does not say. Default: as the
    server is set."""
    dtype: Dtype | None = None
    """The type of numbers to compute with. `int8` is for CPUs and `float16` for GPUs: what has no
    such numbers takes its default. Default: `--dtype`, else float32 on a CPU; on a GPU float16, or
    bfloat16 for a model that was trained in it."""
    sha256: str | None = None
    """The digest that model.safetensors must have."""
    preload: bool = False
    """Whether the server loads the model before it answers anything."""
    pin: bool = False
    """Whether the model is never unloaded, neither to make room nor for want of requests."""
    keep_alive: Seconds | None = None
    """How long the model stays loaded without requests, as 600, "10m" or "1h30m". 0 unloads it at
    once, -1 never. Default: as the server is set."""

    def __post_init__(self) -> None:
        if not (self.path or self.package or self.repo):
            raise ValueError("needs one of `path`, `package` and `repo`")
        if self.revision and not self.repo:
            raise ValueError("`revision` goes with `repo`")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("`max_tokens` must be at least 1")
        if any(size < 1 for size in self.dimensions):
            raise ValueError("`dimensions` must be positive")
        for alias, prompt in self.prompt_aliases.items():
            if self.prompts is not None and prompt not in self.prompts:
                raise ValueError(f"`prompt_aliases`: `{alias}` is to have a prompt `{prompt}`")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("`sha256` must be 64 lower-case hexadecimal digits")

    def loads_like(self, other: "Card") -> bool:
        """Whether a model that was loaded by one of the two cards does for the other as well."""
        unimportant = {name: getattr(self, name) for name in NOT_LOADED}
        return msgspec.structs.replace(other, **unimportant) == self


class AdHocCard(Card, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The card of a model that has none in the file."""

    ad_hoc: ClassVar[bool] = True


class Cards(msgspec.Struct, frozen=True, dict=True):
    """The cards of one file, and those made for models that clients asked for. It never changes."""

    file: Path
    by_id: dict[str, Card]
    by_name: dict[str, Card]
    """By id, by alias and by `prompt_aliases`, in the order of the file."""
    ad_hoc: dict[str, Card] = {}
    """Those that are not in the file, by id. The one that was asked for last stands last."""

    @cached_property
    def names(self) -> Names:
        """The names in the file, to be found however somebody writes them."""
        return Names(self._known())

    def find(self, name: str) -> tuple[Card, str | None] | None:
        """The card that a name means, and its prompt if the name is an alias with one.

        An exact name wins. Else it is the card whose name has the same normal form, if there is
        just one.
        """
        card = self.by_name.get(name)
        if card is not None:
            return card, card.prompt_aliases.get(name)
        known = self.names.find(name)
        if known is not None:
            return self.by_id[known.card], known.prompt
        form = spelled(name).lower()
        found = [card for card in self.ad_hoc.values() if card.id.lower() == form]
        return (found[0], None) if len(found) == 1 else None

    def not_found(self, name: str) -> ModelNotFound:
        """The error to raise about a name that means no card."""
        return ModelNotFound(name, near=self.names.near(name))

    def with_ad_hoc(self, card: Card, name: str | None = None) -> "Cards":
        """These cards and one more, which clients asked for by that name."""
        aliases = self.ad_hoc.get(card.id, card).aliases
        if name is not None and name != card.id and name not in aliases:
            aliases = (*aliases, name)[-AD_HOC_SPELLINGS:]
        card = msgspec.structs.replace(card, aliases=aliases)
        cards = self.without(card.id)
        # A name in the file keeps its meaning, also after the file was read again.
        names = [name for name in (card.id, *aliases) if name not in cards.by_name]
        one = {card.id: card}
        named = dict.fromkeys(names, card)
        return cards._with(cards.by_id | one, cards.by_name | named, cards.ad_hoc | one)

    def without(self, model: str) -> "Cards":
        """These cards without one, if that is not in the file."""
        if model not in self.ad_hoc:
            return self
        left = (
            {name: card for name, card in cards.items() if card.id != model}
            for cards in (self.by_id, self.by_name, self.ad_hoc)
        )
        return self._with(*left)

    def _with(
        self, by_id: dict[str, Card], by_name: dict[str, Card], ad_hoc: dict[str, Card]
    ) -> "Cards":
        cards = Cards(self.file, by_id, by_name, ad_hoc)
        vars(cards)["names"] = self.names  # only the file has names to be found by
        return cards

    def _known(self) -> Iterator[Known]:
        for card in self.by_id.values():
            if card.ad_hoc:
                continue
            for name in (card.id, *card.aliases):
                yield Known(name, card.id)
            for name, prompt in card.prompt_aliases.items():
                yield Known(name, card.id, prompt)
            if card.repo is not None and card.repo not in self.by_name:
                yield Known(card.repo, card.id)
