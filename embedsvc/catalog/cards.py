"""The cards: which models exist, where their files are, and what their files do not say.

A cards file is TOML with a table `[models."<id>"]` for each model. What a card leaves out is read
from the checkpoint's own sentence-transformers files (see `checkpoint`).
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import msgspec

from embedsvc.bounds import AD_HOC_SPELLINGS, MODEL_NAME
from embedsvc.catalog.cards_file import near, read_document, unquoted
from embedsvc.catalog.names import Known, Names, spelled
from embedsvc.errors import CardsError, ModelNotFound
from embedsvc.system.home import expanded, home
from embedsvc.wording.msgspec_errors import plain_types
from embedsvc.wording.plain import shown
from embedsvc.wording.quantities import Seconds, read_keep_alive

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
"""What of a card is looked up when it is needed; all else, when its model is loaded."""
REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
Dtype = Literal["float32", "float16", "bfloat16"]
Prompts = dict[str, str]
"""Texts put before an input when a client asks for them by name; spaces at the end matter."""
TokenIdsMeaning = Literal["cl100k_base", "model", "reject"]
Truncate = Literal["error", "end", "start", "chunk"]


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. At least one of `path`, `package` and `repo` is given, and tried in that order."""

    ad_hoc: ClassVar[bool] = False
    """Whether a client asked for it by name, and nobody vouches for its files."""

    id: str
    path: Path | None = None
    """A folder; in the file, relative to the file."""
    package: str | None = None
    """An installed package and a folder in it: "package/folder"."""
    repo: str | None = None
    """A Hugging Face repository."""
    revision: str | None = None
    """The repository's commit, tag or branch."""
    aliases: tuple[str, ...] = ()
    """Other names for it."""
    pooling: Pooling | tuple[Pooling, ...] | None = None
    """How a text's hidden states become one; of several, the results are set side by side."""
    normalize: bool | None = None
    """Whether vectors are brought to length 1."""
    max_tokens: int | None = None
    """Its limit, special tokens and prompt included."""
    dimensions: tuple[int, ...] = ()
    """Matryoshka sizes that vectors may be cut to."""
    layer_norm: bool = False
    """Whether vectors are layer-normalised before they are cut to one of `dimensions`."""
    prompts: Prompts | None = None
    """Texts put before an input when they are asked for by name: {query = "query: "}."""
    prompt_aliases: dict[str, str] = {}
    """Other names for the model with one of its prompts: {e5-query = "query"}."""
    plain_tokens: tuple[str, ...] = ()
    """Tokens added to its tokeniser that it has no vectors for, to be read as ordinary text."""
    token_ids: TokenIdsMeaning = "cl100k_base"
    """What token ids sent as input are: OpenAI's, this model's own, or not accepted."""
    truncate: Truncate | None = None
    """What becomes of an input that is too long, where the request does not say; left out, as the
    server is set."""
    dtype: Dtype | None = None
    """What the model is computed in; left out, float32 on a CPU and float16 on a GPU."""
    sha256: str | None = None
    """Of model.safetensors."""
    preload: bool = False
    """Whether the server loads it before it answers anything."""
    pin: bool = False
    """Whether it is never unloaded to make room, nor for want of requests."""
    keep_alive: Seconds | None = None
    """How long without requests until it is unloaded, as 600, "10m" or "1h30m": 0 at once, -1
    never; left out, as the server is set."""

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
        """Whether a model that was loaded for one of them will do for the other."""
        unimportant = {name: getattr(self, name) for name in NOT_LOADED}
        return msgspec.structs.replace(other, **unimportant) == self


class AdHocCard(Card, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that has no card in the file."""

    ad_hoc: ClassVar[bool] = True


class Cards(msgspec.Struct, frozen=True, dict=True):
    """The cards of one file."""

    file: Path
    by_id: dict[str, Card]
    by_name: dict[str, Card]
    """By id and by alias, in the file's order."""
    ad_hoc: dict[str, Card] = {}
    """Those of them that are not in the file, by id; what was asked for last stands last."""

    @cached_property
    def names(self) -> Names:
        """The names in the file, to be found however they are written."""
        return Names(self._known())

    def find(self, name: str) -> tuple[Card, str | None] | None:
        """The card that a name means, and the prompt if it is an alias with one: the one of just
        that name, else the only one whose name comes to the same."""
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
        """The error to raise about a name that means nothing here."""
        return ModelNotFound(name, near=self.names.near(name))

    def with_ad_hoc(self, card: Card, name: str | None = None) -> "Cards":
        """These, and one that clients asked for, by that name."""
        aliases = self.ad_hoc.get(card.id, card).aliases
        if name is not None and name != card.id and name not in aliases:
            aliases = (*aliases, name)[-AD_HOC_SPELLINGS:]
        card = msgspec.structs.replace(card, aliases=aliases)
        cards = self.without(card.id)
        # A name of the file's stays the file's, also where that was read anew.
        names = [name for name in (card.id, *aliases) if name not in cards.by_name]
        one = {card.id: card}
        named = dict.fromkeys(names, card)
        return cards._with(cards.by_id | one, cards.by_name | named, cards.ad_hoc | one)

    def without(self, model: str) -> "Cards":
        """These, less one that is not in the file, if it is there."""
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
        vars(cards)["names"] = self.names  # they are the file's
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


def read_cards(file: Path) -> Cards:
    """The cards in a file. Raises `CardsError` that names file, card and key."""
    document = read_document(file)
    for key in document:
        if key != "models":
            raise CardsError(f"{file}: unknown key `{shown(key)}`; cards are tables [models.<id>]")
    try:
        tables = msgspec.convert(document.get("models"), dict[str, Any])
    except msgspec.ValidationError:
        tables = {}
    if not tables:
        raise CardsError(f"{file}: no card, that is no table [models.<id>]")
    by_id: dict[str, Card] = {}
    by_name: dict[str, Card] = {}
    for name, table in tables.items():
        card = _card(file, name, table)
        by_id[card.id] = card
        for known in (card.id, *card.aliases, *card.prompt_aliases):
            if len(known) > MODEL_NAME or not known.isprintable():
                raise CardsError(
                    f"{file}: the name `{shown(known)}`: a model's name has at most {MODEL_NAME} "
                    "characters, and no line breaks or control characters"
                )
            if known in by_name:
                other = by_name[known].id
                raise CardsError(
                    f'{file}: [models."{card.id}"]: the name `{known}` is taken by `{other}`'
                )
            by_name[known] = card
    return Cards(file, by_id, by_name)


def find_cards(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The cards file to use: the one given, else ./models.toml, the user's, the packaged one."""
    if given is not None:
        return given
    here = Path(__file__).parents[1]
    places = [
        Path("models.toml"),
        *_users(environ),
        here / "models.toml",  # installed from a wheel
        here.parent / "models.toml",  # run from a source tree
    ]
    for place in places:
        if os.path.isfile(place):  # noqa: PTH113 - false, too, where this user may not look
            return place
    raise CardsError(f"no cards file; looked at {', '.join(str(place) for place in places)}")


def _users(environ: Mapping[str, str]) -> list[Path]:
    """Where the user's own is, if there is such a user: a container's may have no home."""
    try:
        config = environ.get("XDG_CONFIG_HOME") or home() / ".config"
    except CardsError:
        return []
    return [Path(config) / "embedsvc" / "models.toml"]


def ad_hoc_card(model: str, root: Path) -> Card | None:
    """A card for a model that has none: a folder in `root`, if it begins with "./" or "/", else a
    repository. None for anything else, folders elsewhere included.

    Two names of one folder make equal cards. It looks at the disk: not for the event loop.
    """
    name = spelled(model) if len(model) <= MODEL_NAME else ""
    if name.startswith(("./", "/")):
        folder = _inside(root, name)
        if folder is not None:
            inner = folder.relative_to(root.resolve()).as_posix()
            identity = f"./{inner}"
            if identity.isprintable() and len(identity) <= MODEL_NAME:
                return AdHocCard(id=identity, path=folder)
    elif REPOSITORY.fullmatch(name) and ".." not in name:
        return AdHocCard(id=name, repo=name)
    return None


def _inside(root: Path, name: str) -> Path | None:
    """The folder of that name in another, links followed, if it is one."""
    try:
        folder = (root / name).resolve()
        inside = folder.is_relative_to(root.resolve()) and folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, NUL, links that lead in a circle
        return None
    return folder if inside else None


def _card(file: Path, name: str, table: Any) -> Card:
    where = f'{file}: [models."{shown(name)}"]'
    if not isinstance(table, dict):
        raise CardsError(f"{where}: must be a table")
    if not name.strip() or name != name.strip():
        raise CardsError(f"{where}: an id is not empty and has no space around it")
    if "id" in table:
        raise CardsError(f"{where}: unknown key `id`; a card's id is its table's name")
    keys, known = cast(dict[str, Any], table), Card.__struct_fields__
    whole = unquoted(name, keys, known)
    if whole is not None:
        raise CardsError(
            f'{file}: [models.{shown(whole)}]: quote the name, [models."{shown(whole)}"], or its '
            "dots are taken for tables in tables"
        )
    try:
        kept = keys.get("keep_alive")
        if isinstance(kept, str | float | int) and not isinstance(kept, bool):
            keys = {**keys, "keep_alive": read_keep_alive(kept)}
    except ValueError as error:
        raise CardsError(f"{where}: key `keep_alive`: {error}") from None
    try:
        card = msgspec.convert({**keys, "id": name}, Card, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise CardsError(f"{where}: {_in_words(str(error))}") from None
    if card.path is not None:
        path = file.parent / expanded(card.path)
        card = msgspec.structs.replace(card, path=path)
    return card


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError("expected a string")


def _in_words(message: str) -> str:
    """msgspec's message with the key in front: "key `x`: expected a whole number, not a string"."""
    field = r"Object contains unknown field `(.+?)`(?: - at `\$\.(.+)`)?"
    unknown = re.fullmatch(field, message, re.DOTALL)
    if unknown:
        key, table = unknown.groups()
        if table:
            return f"unknown key `{shown(f'{table}.{key}')}`"
        others = [field for field in Card.__struct_fields__ if field != "id"]
        return f"unknown key `{shown(key)}`{near(key, others)}"
    typed = re.match(r"(.+) - at `\$\.(.+)`$", message)
    if typed:
        said, key = typed.groups()
        said = plain_types(said)
        return f"key `{key}`: {said[0].lower()}{said[1:]}"
    return message
