"""From the bytes of a body to a struct. Errors name the field that is wrong, in plain words.

Half of a surrogate pair, as in a text that was cut in JavaScript, becomes U+FFFD.
"""

import asyncio
import re
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from embedsvc.bounds import JSON_CONTAINERS, JSON_VALUES
from embedsvc.errors import BadRequest
from embedsvc.web.bodies.json_bytes import count, mend
from embedsvc.wording.msgspec_errors import plain_types
from embedsvc.wording.plain import shown

T = TypeVar("T")
RawFields = dict[str, msgspec.Raw]
"""The fields of a body, each as it was sent."""
LARGE = 256 << 10
"""Longer bodies are looked through before they are decoded, on another thread."""
NOT_STRUCTURE = bytes(set(range(256)) - set(b"[{,:"))
SHOWN = 64
"""How many characters of a value an error repeats."""
NOT_JSON = (UnicodeDecodeError, RecursionError, msgspec.DecodeError)
AT = " - at `$."
GOT = ", got `"
MISSING = "Object missing required field "
ENUM = "Invalid enum value "


async def prepared(body: bytes, token_ids: int) -> bytes:
    """A body that is small enough to be decoded in one turn of the event loop.

    Raises `BadRequest` if it has more values than `token_ids` and some more.
    """
    if len(body) <= LARGE:
        return body
    return await asyncio.to_thread(_prepared, body, token_ids)


def decode(body: bytes, kind: type[T]) -> T:
    """The body as a struct. Raises `BadRequest` that names the field that is wrong."""
    try:
        return parse(body, kind)
    except msgspec.ValidationError as error:
        raise wrong_field(fields_of(body), kind, str(error)) from None


def parse(body: bytes, kind: type[T]) -> T:
    """The body as a struct. Raises `BadRequest` if it is not JSON, else msgspec's
    `ValidationError`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise
    except NOT_JSON as error:
        mended = mend(body) if len(body) <= LARGE else body  # `prepared` mended longer ones
        if mended is body:
            not_json(_why(body, error))
    return parse(mended, kind)


def not_json(why: str) -> NoReturn:
    """Refuse a body that is not a JSON object. Raises `BadRequest`."""
    raise BadRequest(
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't "
        "using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was "
        f"sent was not valid JSON: {why}.)"
    )


def wrong_field(sent: RawFields, kind: type[Any], reason: str) -> BadRequest:
    """The error for a body that is no `kind`, where msgspec says why. It names the wrong field."""
    message, found, path = reason.rpartition(AT)
    if not found:
        message, path = reason, ""
    path = path.rstrip("`")
    if message.startswith(MISSING):
        name = message.removeprefix(MISSING).strip("`")
        return BadRequest(f"Missing required parameter: '{f'{path}.' if path else ''}{name}'.")
    if not path:
        not_json(plain_types(message))
    supported = _supported(kind, path)
    if message.startswith(ENUM):
        value = message.removeprefix(ENUM)[1:-1]
    else:
        value = value_of(sent, path) if supported and GOT in message else None
    if value is not None:
        wrong = f"Invalid value for '{path}' = {shown(value, SHOWN)}."
        return BadRequest(f"{wrong} Supported values: {supported}." if supported else wrong)
    return BadRequest(f"Invalid '{path}': {plain_types(message)}.")


def fields_of(body: bytes) -> RawFields:
    """The fields of a body, not decoded. Raises `BadRequest` if it is not a JSON object."""
    try:
        return parse(body, RawFields)
    except msgspec.ValidationError as error:
        not_json(plain_types(str(error)))


def value_of(sent: RawFields, field: str) -> str | None:
    """A field as it was sent, a string without its quotes. None if it is not there."""
    raw = sent.get(field)
    if raw is None:
        return None
    text = bytes(raw)
    return msgspec.json.decode(text) if text.startswith(b'"') else text.decode(errors="replace")


def _prepared(body: bytes, token_ids: int) -> bytes:
    most = token_ids + JSON_VALUES
    structure = body.translate(None, NOT_STRUCTURE)  # of strings too, but it is quick
    if len(structure) > JSON_CONTAINERS:
        counts = count(body)
        if counts.values > most or counts.containers > JSON_CONTAINERS:
            raise BadRequest(
                f"The body of your request has {counts.values} values in its JSON, of which "
                f"{counts.containers} are lists and objects: the limits are {most} and "
                f"{JSON_CONTAINERS}."
            )
    return mend(body)


def _why(body: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return f"byte {wrong.start} is not UTF-8"
    return re.sub("^JSON is malformed: ", "", str(error)).replace("Input data", "it")


def _supported(kind: type[Any], path: str) -> list[str]:
    """The values that a field may have, where they are a closed set."""
    field = re.split(r"[.\[]", path)[0]
    hint = get_type_hints(kind).get(field)
    return [] if "." in path else _choices(hint)


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for part in get_args(hint) for choice in _choices(part)]
