"""The description of the API, made from its routes and the structs that they read and write."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import msgspec

from embedsvc import __version__
from embedsvc.web import refusals

REFUSALS = {
    "400": "What was sent is wrong; the message names the field.",
    "401": "The server has keys, and none of them was sent.",
    "403": "A foreign web page or host name, on a server without keys.",
    "404": "No such model.",
    "408": "The request took too long to come.",
    "413": "The body is too large.",
    "429": "Too much waits; Retry-After says when to come back.",
    "431": "The headers are too large.",
    "500": "The server failed.",
    "503": "The server is stopping, or the model cannot be loaded.",
}


class Stream(NamedTuple):
    """An answer of server-sent events. The data of each is JSON of one type."""

    event: Any


class Operation(Protocol):
    """What a description needs to know of one method of one path; see `Endpoint`."""

    method: str
    path: str
    summary: str
    body: Any
    query: Any
    answer: Any


def openapi_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    operations = list(operations)
    kinds = [kind for operation in operations for kind in (operation.body, operation.answer)]
    kinds = [kind.event if isinstance(kind, Stream) else kind for kind in kinds]
    types = [kind for kind in kinds if kind is not None and not isinstance(kind, str)]
    types += [dialect.answer for dialect in refusals.DIALECTS]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        # Starlette writes {id:path} where an id may hold slashes.
        path = re.sub(r"{(\w+):\w+}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(
            operation, path, schema_of
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "embedsvc",
            "version": __version__,
            "description": (
                "Embeddings, and scores of pairs of texts, in the dialects of OpenAI, Ollama, "
                "TEI, Cohere, vLLM, infinity and Voyage."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                f"{dialect.name}-{status}": {
                    "description": text,
                    "content": _json(schema_of[id(dialect.answer)]),
                }
                for dialect in refusals.DIALECTS
                for status, text in REFUSALS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
        "security": [{"bearer": []}, {"api-key": []}, {}],
    }


def _operation(operation: Operation, path: str, schema_of: dict[int, Any]) -> dict[str, Any]:
    answered: dict[str, Any] = {"description": "The answer."}
    if isinstance(operation.answer, Stream):
        answered["description"] = "Events, one after the other; this is one."
        answered["content"] = {"text/event-stream": {"schema": _event(schema_of, operation.answer)}}
    elif isinstance(operation.answer, str):
        answered["content"] = {operation.answer: {"schema": {"type": "string"}}}
    else:
        answered["content"] = _json(schema_of[id(operation.answer)])
    dialect = refusals.dialect_of(path).name
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {"200": answered}
        | {status: {"$ref": f"#/components/responses/{dialect}-{status}"} for status in REFUSALS},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if operation.query is not None:
        parameters += [
            {
                "name": field.name,
                "in": "query",
                "required": field.required,
                "schema": msgspec.json.schema(field.type),
            }
            for field in msgspec.structs.fields(operation.query)
        ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": _json(schema_of[id(operation.body)]),
        }
    return described


def _event(schema_of: dict[int, Any], stream: Stream) -> dict[str, Any]:
    """The schema of one event, with its fields as they are in the stream.

    OpenAPI before 3.2 cannot say what a stream consists of. Tools take this schema for that of each
    event.
    """
    schema = schema_of[id(stream.event)]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
