"""How a request of OpenAI's embeddings API is read, and how it is refused.

The refusals are in OpenAI's own words, because clients match on them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from embedsvc.bounds import CHUNKS, DIMENSIONS
from embedsvc.errors import BadRequest
from embedsvc.texts.requests import (
    MAX_INPUTS,
    Chunking,
    ComponentType,
    EmbeddingRequest,
    Int32,
    Offsets,
    each_once,
    read_inputs,
    read_sparse,
    read_truncate,
)
from embedsvc.texts.truncation import OPENAI
from embedsvc.web.bodies.json_body import (
    AT,
    GOT,
    SHOWN,
    RawFields,
    fields_of,
    not_json,
    parse,
    value_of,
    wrong_field,
)
from embedsvc.web.dialects.openai_schema import DeploymentBody, EmbeddingBody
from embedsvc.wording.msgspec_errors import plain_types
from embedsvc.wording.plain import shown


def read_request(
    body: bytes, *, model: str | None = None, max_inputs: int = MAX_INPUTS
) -> EmbeddingRequest:
    """The request in a body. `model` is the one that the path names, if it does.

    Raises `BadRequest`. As OpenAI does, it says what is wrong with the model before the input.

    >>> read_request(b'{"model": "bge-m3", "input": "a text"}').inputs
    ['a text']
    >>> read_request(b'{"input": ["a text"], "dimensions": 8}', model="bge-m3").dimensions
    8
    """
    kind = EmbeddingBody if model is None else DeploymentBody
    try:
        sent = parse(body, kind)
    except msgspec.ValidationError as error:
        raise _in_openais_order(body, kind, error) from None
    if isinstance(sent, EmbeddingBody):
        model = sent.model
    assert model is not None  # noqa: S101 - the path or the body names it
    each_once("embedding_types", sent.embedding_types or ())
    types = sent.embedding_types or []
    dtypes: list[ComponentType] = [dtype for dtype in types if dtype != "sparse"]
    inputs = read_inputs(sent.input, max_inputs)
    return EmbeddingRequest(
        model=model,
        inputs=inputs,
        encoding_format=sent.encoding_format or "float",
        dimensions=sent.dimensions,
        input_type=sent.input_type,
        prompt_name=sent.prompt_name,
        prompt=sent.prompt,
        truncate=read_truncate(sent.truncate),
        otherwise=OPENAI,
        chunks=_chunks(sent, len(inputs)),
        dtypes=sent.output_dtype or dtypes or "float",
        sparse=read_sparse(sent.max_active_dims, sent.min_weight) if "sparse" in types else None,
        dense=not types or bool(dtypes),
    )


def _in_openais_order(
    body: bytes, kind: type[DeploymentBody], error: msgspec.ValidationError
) -> BadRequest:  # fmt: skip
    """What is wrong with a body that does not fit its struct.

    OpenAI looks at the model first and then at the input, and has words of its own for some fields.
    """
    sent = fields_of(body)
    present = {name for name, raw in sent.items() if bytes(raw) != b"null"}
    if kind is EmbeddingBody:
        model = bytes(sent["model"]) if "model" in present else b'""'
        if not model.startswith(b'"'):
            not_json("'model' is no string")
        if model == b'""':
            return BadRequest("you must provide a model parameter")
    if "input" not in present:
        return BadRequest("Please submit an `input`.")
    message, _, path = str(error).rpartition(AT)
    path = path.rstrip("`")
    if path == "input":
        return BadRequest("Invalid 'input': expected a string or token array.")
    if path == "dimensions":
        return _wrong_dimensions(sent, message)
    if path.startswith("input[") and GOT in message:
        expected, got = plain_types(message).rsplit(", ", 1)
        expected = "a token id" if expected.endswith(" number") else "a string or token array"
        return BadRequest(f"Invalid '{path}': expected {expected}, {got}.")
    return wrong_field(sent, kind, str(error))


def _wrong_dimensions(sent: RawFields, message: str) -> BadRequest:
    value = shown(value_of(sent, "dimensions") or "", SHOWN)
    wrong = f"Invalid value for 'dimensions' = {value}."
    if message.startswith("Expected `int` >="):
        return BadRequest(f"{wrong} Must be greater than 0.")
    if not message.startswith("Expected `int | null`"):
        return BadRequest(f"{wrong} Must be less than or equal to {DIMENSIONS}.")
    value = f"'{value}'" if message.endswith("`str`") else value
    return BadRequest(f"{value} is not of type 'integer' - 'dimensions'")


def _chunks(
    sent: DeploymentBody, inputs: int
) -> Chunking | Sequence[Sequence[Offsets]] | None:  # fmt: skip
    """The chunks of each input. Where the input is not in a list, neither are its chunks.

    Raises `BadRequest`.
    """
    if sent.chunks is None:
        return sent.chunking
    if sent.chunking is not None:
        raise BadRequest("Invalid 'chunks': give either `chunks` or `chunking`.")
    try:
        one = isinstance(sent.input, str) or isinstance(sent.input[0], int)
        kind = list[tuple[Int32, Int32]] if one else list[list[tuple[Int32, Int32]]]
        found: Any = msgspec.convert(sent.chunks, kind)
    except msgspec.ValidationError:
        raise BadRequest(
            "Invalid 'chunks': expected [start, end] of each chunk, in a list for each input."
        ) from None
    chunks: list[list[Offsets]] = [found] if one else found
    total = sum(map(len, chunks))
    if total > CHUNKS:
        raise BadRequest(f"Invalid 'chunks': they are {total}, and {CHUNKS} at most.")
    if len(chunks) != inputs or not all(chunks):
        raise BadRequest(
            f"Invalid 'chunks': expected one or more chunks for each of {inputs} inputs."
        )
    return chunks
