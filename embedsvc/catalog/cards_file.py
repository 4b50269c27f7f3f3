"""The cards file: where it is, and from its text to cards.

It is TOML with a table `[models."<id>"]` for each model.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from embedsvc.bounds import MODEL_NAME
from embedsvc.catalog.cards import OF_THE_MODEL, Card, Cards
from embedsvc.catalog.toml_document import near, read_document, unquoted
from embedsvc.errors import CardsError
from embedsvc.system.home import expanded, home
from embedsvc.wording.msgspec_errors import plain_types
from embedsvc.wording.plain import shown
from embedsvc.wording.quantities import read_keep_alive


def find_cards_file(named: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The cards file to use: the named one, else ./models.toml, the user's, the packaged one.

    Raises `CardsError` if there is none.
    """
    if named is not None:
        return named
    places = [Path("models.toml"), *_user_files(environ), *_shipped_files()]
    for place in places:
        if os.path.isfile(place):  # noqa: PTH113 - it is False, too, where this user may not look
            return place
    raise CardsError(f"no cards file; looked at {', '.join(str(place) for place in places)}")


def _shipped_files() -> list[Path]:
    """Where the packaged file may be: in a wheel, or in a source tree."""
    here = Path(__file__).parents[1]
    return [here / "models.toml", here.parent / "models.toml"]


def _user_files(environ: Mapping[str, str]) -> list[Path]:
    """Where the user's own file may be. Nowhere, if the user has no home, as in some containers."""
    try:
        config = environ.get("XDG_CONFIG_HOME") or home() / ".config"
    except CardsError:
        return []
    return [Path(config) / "embedsvc" / "models.toml"]


def read_cards(file: Path) -> Cards:
    """The cards in a file. Raises `CardsError` that names the file, the card and the key."""
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
        card = _read_card(file, name, table, tables)
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


def card_like(card: Card, cards: Cards) -> Card | None:
    """The card that another one is `like`; None if it is like none, or was made by hand."""
    if card.like is None:
        return None
    known = cards.by_id.get(card.like)
    if known is None or known == card:
        shipped = next(filter(Path.is_file, _shipped_files()), None)
        return None if shipped is None else read_cards(shipped).by_id.get(card.like)
    return known


def _read_card(file: Path, name: str, table: Any, others: dict[str, Any]) -> Card:
    """The card in one table of the file. Raises `CardsError`."""
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
        keep_alive = keys.get("keep_alive")
        if isinstance(keep_alive, str | float | int) and not isinstance(keep_alive, bool):
            keys = {**keys, "keep_alive": read_keep_alive(keep_alive)}
    except ValueError as error:
        raise CardsError(f"{where}: key `keep_alive`: {error}") from None
    if isinstance(like := keys.get("like"), str):
        rest = {other: table for other, table in others.items() if other != name}
        keys = {**_of_the_model(where, like, rest), **keys}
    try:
        card = msgspec.convert({**keys, "id": name}, Card, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise CardsError(f"{where}: {_name_key(str(error))}") from None
    if card.adapter is not None and (beside := file.parent / expanded(Path(card.adapter))).is_dir():
        card = msgspec.structs.replace(card, adapter=str(beside))
    if card.path is not None:
        path = file.parent / expanded(card.path)
        card = msgspec.structs.replace(card, path=path)
    return card


def _of_the_model(where: str, like: str, others: dict[str, Any]) -> dict[str, Any]:
    """What the card of that id says of how the model is used, in any precision.

    Raises `CardsError` if there is none, in the same file or in the packaged one.
    """
    table = others.get(like)
    shipped = next(filter(Path.is_file, _shipped_files()), None)
    if table is None and shipped is not None:
        table = read_document(shipped)["models"].get(like)
    if not isinstance(table, dict):
        raise CardsError(f"{where}: key `like`: no card has the id `{shown(like)}`")
    keys = cast(dict[str, Any], table)
    if "like" in keys:
        raise CardsError(f"{where}: key `like`: `{shown(like)}` is like another itself; name that")
    return {key: keys[key] for key in OF_THE_MODEL if key in keys}


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError("expected a string")


def _name_key(message: str) -> str:
    """msgspec's message in plain words, with the key in front.

    >>> _name_key("Expected `int | null`, got `str` - at `$.max_tokens`")
    'key `max_tokens`: expected a whole number or null, not a string'
    >>> _name_key("Object contains unknown field `pool`")
    'unknown key `pool`; `pooling` is one'
    """
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
        reason, key = typed.groups()
        reason = plain_types(reason)
        return f"key `{key}`: {reason[0].lower()}{reason[1:]}"
    return message
