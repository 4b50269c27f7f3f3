"""The cards: which models exist, where their files are, and what their files do not say.

A cards file is TOML with a table `[models."<id>"]` for each model. What a card leaves out is read
from the checkpoint's own sentence-transformers files (see `checkpoint`).
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import msgspec

from embedsvc.errors import CardsError, ModelNotFound
from embedsvc.quantities import Seconds, read_keep_alive
from embedsvc.text_files import read_text
from embedsvc.wording import plain_types

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
    token_ids: TokenIdsMeaning = "cl100k_base"
    """What token ids sent as input are: OpenAI's, this model's own, or not accepted."""
    truncate: Truncate = "error"
    """What becomes of an input that is too long, where the request does not say."""
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


class Cards(msgspec.Struct, frozen=True):
    """The cards of one file."""

    file: Path
    by_id: dict[str, Card]
    by_name: dict[str, Card]
    """By id and by alias, in the file's order."""
    ad_hoc: dict[str, Card] = {}
    """Those of them that are not in the file, by id."""

    def with_ad_hoc(self, card: Card) -> "Cards":
        """These, and one that clients asked for."""
        one = {card.id: card}
        return Cards(self.file, self.by_id | one, self.by_name | one, self.ad_hoc | one)


def read_cards(file: Path) -> Cards:
    """The cards in a file. Raises `CardsError` that names file, card and key."""
    try:
        document = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise CardsError(f"{file}: not a TOML file: {error}") from None
    for key in document:
        if key != "models":
            raise CardsError(f"{file}: unknown key `{key}`; cards are tables [models.<id>]")
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
    config = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    here = Path(__file__).parent
    places = (
        Path("models.toml"),
        Path(config) / "embedsvc" / "models.toml",
        here / "models.toml",  # installed from a wheel
        here.parent / "models.toml",  # run from a source tree
    )
    for place in places:
        if place.is_file():
            return place
    raise CardsError(f"no cards file; looked at {', '.join(str(place) for place in places)}")


def ad_hoc_card(model: str, root: Path) -> Card:
    """A card for a model that has none: a folder in `root`, if it begins with "./" or "/", else a
    repository. Raises `ModelNotFound` for anything else, folders elsewhere included."""
    if model.startswith(("./", "/")):
        folder = (root / model).resolve()  # which also follows links
        if folder.is_relative_to(root.resolve()) and folder.is_dir():
            return AdHocCard(id=model, path=folder)
    elif REPOSITORY.fullmatch(model) and ".." not in model:
        return AdHocCard(id=model, repo=model)
    raise ModelNotFound(model)


def _card(file: Path, name: str, table: Any) -> Card:
    where = f'{file}: [models."{name}"]'
    if not isinstance(table, dict):
        raise CardsError(f"{where}: must be a table")
    if not name.strip() or name != name.strip():
        raise CardsError(f"{where}: an id is not empty and has no space around it")
    if "id" in table:
        raise CardsError(f"{where}: unknown key `id`; a card's id is its table's name")
    keys = cast(dict[str, Any], table)
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
        path = file.parent / card.path.expanduser()
        card = msgspec.structs.replace(card, path=path)
    return card


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError("expected a string")


def _in_words(message: str) -> str:
    """msgspec's message with the key in front: "key `x`: expected a whole number, not a string"."""
    unknown = re.match(r"Object contains unknown field `(.+?)`(?: - at `\$\.(.+)`)?", message)
    if unknown:
        key, table = unknown.groups()
        return f"unknown key `{f'{table}.{key}' if table else key}`"
    typed = re.match(r"(.+) - at `\$\.(.+)`$", message)
    if typed:
        said, key = typed.groups()
        said = plain_types(said)
        return f"key `{key}`: {said[0].lower()}{said[1:]}"
    return message
