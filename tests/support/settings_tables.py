"""The tables of settings and of a card's keys, made from what the code says of each field."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from embedsvc.catalog.cards import Card
from embedsvc.settings import Settings
from embedsvc.wording.field_docs import field_docs
from embedsvc.wording.quantities import Bytes, Seconds, write_bytes

WORDS: dict[Any, str] = {
    str: "text",
    Path: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    Bytes: "size",
    Seconds: "time",
}


def settings() -> str:
    """A row for each setting: option, variable, default, meaning."""
    said = meanings(Settings)
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(Settings):
        option = f"`--{field.name.replace('_', '-')}`" if field.name != "api_keys" else ""
        variable = f"`EMBEDSVC_{field.name.upper()}`"
        rows.append(f"| {option} | {variable} | {_default(field)} | {said[field.name]} |")
    return "\n".join(rows) + "\n"


def cards() -> str:
    """A row for each key of a card: its name, what it may be, default, meaning."""
    said = meanings(Card)
    rows = ["| key | is | default | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(Card):
        if field.name != "id":  # the name of the card's table
            kind = _kind(field.type)
            rows.append(f"| `{field.name}` | {kind} | {_default(field)} | {said[field.name]} |")
    return "\n".join(rows) + "\n"


def meanings(struct: type) -> dict[str, str]:
    """What a class says of each field, for a cell; a field of which it says nothing is an error."""
    found = field_docs(struct)
    missing = {field.name for field in msgspec.structs.fields(struct)} - set(found) - {"id"}
    assert not missing, f"{struct.__name__}: nothing is said of {missing}"
    return {name: text.replace("|", "\\|") for name, text in found.items()}


def _default(field: msgspec.structs.FieldInfo) -> str:
    default = field.default
    if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default in (None, (), {}, msgspec.NODEFAULT):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if field.type == Bytes:
        return f"`{write_bytes(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _kind(kind: Any) -> str:
    """A field's type in the words of TOML."""
    if kind in WORDS:
        return WORDS[kind]
    parts = [part for part in get_args(kind) or (kind,) if part is not type(None)]
    if get_origin(kind) in (tuple, dict):
        return f"{'list' if get_origin(kind) is tuple else 'table'} of {WORDS[parts[0]]}s"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if len(parts) == 1:
        return _kind(parts[0])
    return f"{_kind(parts[0])}, or a list of them"  # pooling alone is one or several
