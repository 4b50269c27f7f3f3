"""The tables of routes and of what they take, made from the server's own /openapi.json."""

from typing import Any

from embedsvc.settings import Settings
from embedsvc.web.app import create_app
from embedsvc.web.openapi import REFUSALS, openapi_document
from tests.support.models_table import FILE


def document() -> dict[str, Any]:
    """The description that a server gives at /openapi.json."""
    return openapi_document(create_app(Settings(models=FILE, backend="numpy")).routes)  # type: ignore[arg-type]


def routes() -> str:
    """A row for each method of each path."""
    rows = ["| route | answers | takes |", "|---|---|---|"]
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            body = _name(_schema(operation.get("requestBody", {})))
            link = f"[{body}](#{body.lower()})" if body else ""
            rows.append(f"| `{method.upper()} {path}` | {operation['summary']} | {link} |")
    return "\n".join(rows) + "\n"


def bodies() -> str:
    """A table for each kind of body that a route takes, and for each kind of object in it."""
    told = document()
    schemas = told["components"]["schemas"]
    names: list[str] = []
    for methods in told["paths"].values():
        for operation in methods.values():
            names += _names(_schema(operation.get("requestBody", {})))
    parts: list[str] = []
    told_of: set[str] = set()
    for name in names:  # the loop itself adds to it
        if name in told_of:
            continue
        told_of.add(name)
        rows = [f"### {_name({'$ref': name})}", "", "| field | is | default |", "|---|---|---|"]
        schema = schemas[name]
        for field, kind in schema.get("properties", {}).items():
            needed = field in schema.get("required", ())
            default = "must be there" if needed else _default(kind)
            rows.append(f"| `{field}` | {_kind(kind)} | {default} |")
            names += _names(kind)
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def refusals() -> str:
    """A row for each status of an error."""
    rows = [f"| {status} | {description} |" for status, description in REFUSALS.items()]
    return "\n".join(["| status | because |", "|---|---|", *rows]) + "\n"


def _schema(body: dict[str, Any]) -> dict[str, Any]:
    return body.get("content", {}).get("application/json", {}).get("schema", {})


def _names(kind: dict[str, Any]) -> list[str]:
    """The schemas that a type refers to."""
    found = [kind["$ref"].rpartition("/")[2]] if "$ref" in kind else []
    for part in (*kind.get("anyOf", ()), *([kind["items"]] if kind.get("items") else [])):
        found += _names(part)
    return found


def _name(kind: dict[str, Any]) -> str:
    """A schema's name as a heading."""
    return kind.get("$ref", "").rpartition("/")[2]


def _kind(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        name = _name(kind)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(_kind(part) for part in kind["anyOf"]))
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("type") == "array":
        return f"list of ({_kind(kind['items'])})" if kind.get("items") else "list"
    return str(kind.get("type", "anything"))


def _default(kind: dict[str, Any]) -> str:
    default = kind.get("default")
    return "" if default is None else f"`{str(default).lower()}`"
