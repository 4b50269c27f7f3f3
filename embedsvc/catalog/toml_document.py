"""A cards file as TOML. Mistakes that people make are told with the line and what to do."""

import re
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from embedsvc.errors import CardsError
from embedsvc.system.text_files import read_text
from embedsvc.wording.plain import shown

PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)
TWICE = re.compile(r"Cannot (?:declare|mutate immutable namespace) \('models', (['\"])(.+?)\1")
BARE = re.compile(r"[\w-]+", re.ASCII)
"""A key that TOML takes without quotes."""


def read_document(file: Path) -> dict[str, Any]:
    """What is in a TOML file. Raises `CardsError` that names the file and the line."""
    text = read_text(file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = str(error), str(text.count("\n") + 1)
        place = PLACE.fullmatch(message)
        if place is not None:
            message, line = place[1], place[2] or line
        twice = TWICE.match(message)
        if twice is not None:
            message = f'[models."{shown(twice[2])}"] is there twice'
        elif message == "Cannot overwrite a value":
            message = "this key is there twice"
        raise CardsError(f"{file}, line {line}: {shown(message)}") from None
    except RecursionError:
        raise CardsError(f"{file}: nested too deeply") from None


def unquoted(name: str, table: Mapping[str, Any], known: Collection[str]) -> str | None:
    """The name that somebody wrote without quotes, so that TOML took its dots for tables in tables.

    None if nothing looks like that. `known` are the keys that a card may have.

    >>> table = tomllib.loads("[models.bge-small-en-v1.5]")["models"]["bge-small-en-v1"]
    >>> unquoted("bge-small-en-v1", table | {"5": {"repo": "x/y"}}, {"repo"})
    'bge-small-en-v1.5'
    """
    for key, value in table.items():
        if key in known or not isinstance(value, dict) or not BARE.fullmatch(key):
            continue
        inner = cast(dict[str, Any], value)
        longer = f"{name}.{key}"
        if inner.keys() & known:
            return longer
        found = unquoted(longer, inner, known)
        if found is not None:
            return found
    return None


def near(key: str, known: Collection[str]) -> str:
    """The known key that is most like one that is not known, for the end of an error.

    >>> near("max-token", ["max_tokens", "repo"])
    '; `max_tokens` is one'
    >>> near("colour", ["max_tokens", "repo"])
    ''
    """
    found = get_close_matches(key.lower().replace("-", "_"), known, n=1)
    return f"; `{found[0]}` is one" if found else ""
