"""The texts of a query and of documents, in whichever of the shapes they come that clients know."""

from collections.abc import Sequence
from typing import Any, cast

import orjson

from embedsvc.errors import BadRequest, EmptyInput

FORMS = "expected a text, or an object with `text`, or with a list of parts as `content`"


def read_query(value: str | dict[str, Any], field: str = "query") -> str:
    """The text of a query. Raises `BadRequest`, also if it is empty."""
    text = read_text(value, field)
    if not text:
        raise EmptyInput(f"Invalid '{field}': it cannot be an empty string.")
    return text


def read_documents(
    value: Any, most: int, field: str = "documents", rank_fields: Sequence[str] | None = None
) -> list[str]:
    """The texts of documents, or of one that is in no list; they may be empty.

    `rank_fields` is None where there are no such. Raises `BadRequest`.
    """
    values = listed(value)
    check_number(values, most, field)
    return [
        each if isinstance(each, str) else read_text(each, name_of(value, field, i), rank_fields)
        for i, each in enumerate(values)
    ]


def listed(value: Any) -> list[str | dict[str, Any]]:
    """The items of a list, or the one that is in none."""
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def name_of(value: Any, field: str, index: int) -> str:
    """What errors call an item of a list, or the one that is in none."""
    return f"{field}[{index}]" if isinstance(value, list) else field


def check_number(values: Sequence[Any], most: int, field: str) -> None:
    """Raise `BadRequest` unless there are 1 to `most` of them."""
    if not values:
        raise EmptyInput(f"Invalid '{field}': it cannot be an empty array.")
    if len(values) > most:
        raise BadRequest(f"Invalid '{field}': array length must be {most} or less.")


def to_json(value: Any, field: str) -> bytes:
    """A part of a document as JSON. Raises `BadRequest` for one that can be read, but not written:
    a number of more than 64 bits, or lists in lists in lists.

    >>> to_json({"year": 1981}, "documents[0]")
    b'{"year":1981}'
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"Invalid '{field}': it cannot be written as JSON: {error}.") from None


def read_text(
    value: str | dict[str, Any], field: str, rank_fields: Sequence[str] | None = None
) -> str:
    """The text of a string or an object. Raises `BadRequest`.

    >>> read_text({"content": [{"type": "text", "text": "a cat"}]}, "query")
    'a cat'
    >>> read_text({"title": "Cats", "year": 1981}, "documents[0]", ["year", "title"])
    'year: 1981\\ntitle: Cats\\n'
    """
    if isinstance(value, str):
        return value
    if rank_fields:
        return _fields(value, field, rank_fields)
    text = value.get("text")
    if isinstance(text, str):
        return text
    content = value.get("content")
    if not isinstance(content, list) or not content:
        otherwise = "" if rank_fields is None else "; or say its `rank_fields`"
        raise BadRequest(f"Invalid '{field}': {FORMS}{otherwise}.")
    return "\n".join(_part(part, field) for part in cast("list[Any]", content))


def _part(part: Any, field: str) -> str:
    """A part of `content`, as the clients of vLLM send it. Raises `BadRequest`."""
    text = cast("dict[str, Any]", part).get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise BadRequest(f"Invalid '{field}': expected parts of `content` that have a `text`.")
    return text


def _fields(value: dict[str, Any], field: str, names: Sequence[str]) -> str:
    """The fields of a document that are to be read, a line for each, in the order of `names`.

    Of `text` alone there is no name before it: that is what is read of documents by default.
    """
    found = {name: value[name] for name in names if name in value}
    if not found:
        raise BadRequest(f"Invalid '{field}': it has none of the `rank_fields`.")
    if list(found) == ["text"] and isinstance(found["text"], str):
        return found["text"]
    return "".join(f"{name}: {_plain(each, field)}\n" for name, each in found.items())


def _plain(value: Any, field: str) -> str:
    return value if isinstance(value, str) else to_json(value, field).decode()
