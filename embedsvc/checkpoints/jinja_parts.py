"""The parts of a template in Jinja, of which only what templates of pairs consist of is understood.

That is texts, and expressions that choose the message of a role.

There are no loops, no calls and no concatenation, so no template takes long or gives much.
"""

import ast
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from embedsvc.bounds import TEMPLATE

Role = Literal["system", "query", "document"]


class Slot(NamedTuple):
    """The place of a message in a template; the one of the system is the instruction."""

    role: Role


Part = str | Slot


class NotUnderstood(Exception):
    """The template has something in it that is not known here."""


class _Message(NamedTuple):
    role: str
    content: Slot


UNDEFINED = object()
TAG = re.compile(r"(\{\{.{0,4000}?\}\}|\{%.{0,4000}?%\}|\{#.{0,4000}?#\})", re.DOTALL)
BEGIN = re.compile(r"\{[{%#]")
SET = re.compile(r"set\s+([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
TOKEN = re.compile(
    r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|\d{1,3}|[|()\[\].,=])"""
)


def render(source: str, roles: Sequence[Role]) -> tuple[Part, ...]:
    """The parts that messages of these roles give, one behind the other.

    Raises `NotUnderstood`, also if they are longer than a template may be.
    """
    names: dict[str, Any] = {"messages": [_Message(role, Slot(role)) for role in roles]}
    parts: list[Part] = []
    for piece in _pieces(source):
        if isinstance(piece, str):
            parts.append(piece)
            continue
        if (setting := SET.fullmatch(piece.code)) is not None and piece.kind == "%":
            names[setting[1]] = _Expression(setting[2], names).value()
        elif piece.kind == "{":
            value = _Expression(piece.code, names).value()
            if not isinstance(value, str | Slot):
                raise NotUnderstood
            parts.append(value)
        else:
            raise NotUnderstood
    if sum(len(part) for part in parts if isinstance(part, str)) > TEMPLATE:
        raise NotUnderstood
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined)


class _Tag(NamedTuple):
    kind: str  # "{" of an expression, "%" of a statement
    code: str


def _pieces(source: str) -> list[str | _Tag]:
    """Texts and tags, without the white space that Jinja takes away as transformers sets it.

    That is a newline at the very end and one behind each statement, white space before a statement
    in its line, and what stands beside a tag's `-`.
    """
    source = source.replace("\r\n", "\n").removesuffix("\n")
    stated = TAG.split(source)
    split = [*stated]
    for index in range(1, len(split), 2):
        tag = split[index]
        if tag[1] != "{":
            split[index + 1] = split[index + 1].removeprefix("\n")
            _, newline, line = stated[index - 1].rpartition("\n")
            if not line.strip() and (newline or index == 1):
                split[index - 1] = split[index - 1].removesuffix(line)
        if tag[2] == "-":
            split[index - 1] = split[index - 1].rstrip()
        if tag[-3] == "-":
            split[index + 1] = split[index + 1].lstrip()
    pieces: list[str | _Tag] = []
    for index, piece in enumerate(split):
        if index % 2 == 0:
            if BEGIN.search(piece):  # of a tag that does not end, or is very long
                raise NotUnderstood
            pieces.append(piece)
        elif piece[1] != "#":
            pieces.append(_Tag(piece[1], piece[2:-2].removeprefix("-").removesuffix("-").strip()))
    return pieces


class _Expression:
    """Evaluates one expression: a name, a text or a message, through filters."""

    def __init__(self, code: str, names: dict[str, Any]) -> None:
        self._names = names
        self._tokens: list[str] = []
        at = 0
        while at < len(code.rstrip()):
            found = TOKEN.match(code, at)
            if found is None:
                raise NotUnderstood
            self._tokens.append(found[1])
            at = found.end()
        self._at = 0

    def value(self) -> Any:
        """Its value: a text, a slot, a message, a list of these, or `UNDEFINED`."""
        value = self._filtered()
        if self._at < len(self._tokens):
            raise NotUnderstood
        return value

    def _next(self, expected: str | None = None) -> str:
        if self._at == len(self._tokens):
            raise NotUnderstood
        token = self._tokens[self._at]
        if expected is not None and token != expected:
            raise NotUnderstood
        self._at += 1
        return token

    def _take(self, token: str) -> bool:
        """Whether that token is next; if so, it is passed."""
        found = self._tokens[self._at : self._at + 1] == [token]
        self._at += found
        return found

    def _filtered(self) -> Any:
        value = self._primary()
        while self._take("|"):
            value = self._filter(value)
        return value

    def _primary(self) -> Any:
        token = self._next()
        if token == "(":
            value = self._filtered()
            self._next(")")
        elif token[0] in "\"'":
            value = _text(token)
        elif token in ("true", "True", "false", "False"):
            value = token.lower() == "true"
        elif token[0].isalpha() or token[0] == "_":
            value = self._names.get(token, UNDEFINED)
        else:
            raise NotUnderstood
        while True:
            if self._take("."):
                value = _attribute(value, self._next())
            elif self._take("["):
                key = self._next()
                self._next("]")
                value = _item(value, int(key)) if key.isdigit() else _attribute(value, _text(key))
            else:
                return value

    def _filter(self, value: Any) -> Any:
        name = self._next()
        arguments, named = self._arguments() if self._take("(") else ([], {})
        if named and (name, named) != ("map", {"attribute": "content"}):
            raise NotUnderstood
        match name, arguments, named:
            case "selectattr", ["role", "eq" | "equalto", role], {}:
                return [message for message in _messages(value) if message.role == role]
            case "map", [], {"attribute": "content"}:
                return [message.content for message in _messages(value)]
            case "first", [], {}:
                return _item(value, 0)
            case "list", [], {} if isinstance(value, list):
                return cast(Any, value)
            case "default", [other, *rest], {} if rest in ([], [True], [False]):
                return other if value is UNDEFINED or (rest == [True] and value == "") else value
            case _:
                raise NotUnderstood

    def _arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Those of a filter, up to its closing bracket."""
        values: list[Any] = []
        named: dict[str, Any] = {}
        while not self._take(")"):
            if self._tokens[self._at + 1 : self._at + 2] == ["="]:
                name = self._next()
                self._next("=")
                named[name] = self._filtered()
            else:
                values.append(self._filtered())
            if not self._take(","):
                self._next(")")
                break
        return values, named


def _text(token: str) -> str:
    """The text that a literal stands for, which Jinja writes as Python does."""
    if token[0] not in "\"'":
        raise NotUnderstood
    try:
        text = ast.literal_eval(token)
        text.encode()  # half of a surrogate pair has no bytes
    except (SyntaxError, ValueError):
        raise NotUnderstood from None
    return text


def _attribute(value: Any, name: str) -> Any:
    if not isinstance(value, _Message) or name not in ("role", "content"):
        raise NotUnderstood
    return value.content if name == "content" else value.role


def _item(value: Any, index: int) -> Any:
    if not isinstance(value, list):
        raise NotUnderstood
    items = cast(list[Any], value)
    return items[index] if index < len(items) else UNDEFINED


def _messages(value: Any) -> list[_Message]:
    if not isinstance(value, list):
        raise NotUnderstood
    messages = cast(list[Any], value)
    if not all(isinstance(each, _Message) for each in messages):
        raise NotUnderstood
    return messages
