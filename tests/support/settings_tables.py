"""The tables of settings and of a card's keys, made from what the code says of each field."""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from embedsvc.catalog.cards import Card
from embedsvc.settings import Settings
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
    """The string below each field of a class, on one line; a field without one is an error."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(text, ast.Constant):
                found[field.target.id] = " ".join(str(text.value).split()).replace("|", "\\|")
    missing = {field.name for field in msgspec.structs.fields(struct)} - set(found) - {"id"}
    assert not missing, f"{struct.__name__}: nothing is said of {missing}"
    return found


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
