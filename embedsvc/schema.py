"""The wire format of OpenAI's embeddings API: requests read, answers and errors written.

Wording of the refusals is OpenAI's own, because clients match on it.
"""

import binascii
from collections.abc import Iterable
from typing import Any, Literal, NoReturn

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.errors import BadRequest, RequestError

MAX_INPUTS = 2048
EncodingFormat = Literal["float", "base64"]


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """What `POST /v1/embeddings` asks for."""

    model: str
    texts: list[str]
    encoding_format: EncodingFormat


class _Body(msgspec.Struct):
    """The JSON object as sent. Unknown fields are ignored, null is as good as absent."""

    model: Any = None
    input: Any = None
    encoding_format: Any = None


def read_request(body: bytes) -> EmbeddingRequest:
    """The request in a body. Raises `BadRequest`; the model is looked at before the input."""
    try:
        sent = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _not_json()
    if sent.model is not None and not isinstance(sent.model, str):
        _not_json()
    if not sent.model:
        raise BadRequest("you must provide a model parameter")
    texts = _texts(sent.input)
    if sent.encoding_format not in (None, "float", "base64"):
        raise BadRequest(
            f"Invalid value for 'encoding_format' = {sent.encoding_format}. "
            "Supported values: ['float', 'base64']."
        )
    return EmbeddingRequest(sent.model, texts, sent.encoding_format or "float")


def write_rows(
    vectors: NDArray[np.float32], *, first: int = 0, encoding_format: EncodingFormat = "float"
) -> bytes:
    """The answer's rows for vectors (n, D), of which the first is number `first`.

    Floats are written in the fewest digits that read back to the same float32; base64 is of
    little-endian float32.
    """
    values: Iterable[Any] = vectors
    if encoding_format == "base64":
        little = vectors.astype("<f4", copy=False)
        values = (binascii.b2a_base64(row, newline=False).decode() for row in little)
    rows = [
        {"object": "embedding", "index": index, "embedding": value}
        for index, value in enumerate(values, first)
    ]
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]  # less the brackets


def write_embeddings(rows: Iterable[bytes], *, model: str, tokens: int) -> bytes:
    """The answer around what `write_rows` wrote."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(rows),
        orjson.dumps(model),
        orjson.dumps(usage),
    )


def write_models(names: Iterable[str], created: int) -> bytes:
    """The list of models; `created` in seconds since 1970."""
    return orjson.dumps({"object": "list", "data": [_model(name, created) for name in names]})


def write_model(name: str, created: int) -> bytes:
    """One model."""
    return orjson.dumps(_model(name, created))


def write_error(error: RequestError) -> bytes:
    """The body of a refusal."""
    return orjson.dumps(
        {
            "error": {
                "message": error.message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
            }
        }
    )


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "embedsvc"}


def _texts(value: Any) -> list[str]:
    if value is None:
        raise BadRequest("Please submit an `input`.")
    if isinstance(value, str):
        if not value:
            raise BadRequest("Invalid 'input': input cannot be an empty string.")
        return [value]
    try:
        texts = msgspec.convert(value, list[str])
    except msgspec.ValidationError:
        raise BadRequest("Invalid 'input': expected a string or an array of strings.") from None
    if not texts:
        raise BadRequest("Invalid 'input': input cannot be an empty array.")
    if len(texts) > MAX_INPUTS:
        raise BadRequest(f"Invalid 'input': array length must be {MAX_INPUTS} or less.")
    for index, text in enumerate(texts):
        if not text:
            raise BadRequest(f"Invalid 'input[{index}]': input cannot be an empty string.")
    return texts


def _not_json() -> NoReturn:
    raise BadRequest(
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't "
        "using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was "
        "sent was not valid JSON.)"
    )
