"""The API's description of itself: complete, true, and readable without anybody's CDN."""

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from embedsvc.bounds import CHUNKS, DIMENSIONS, MODEL_NAME
from embedsvc.web.admin.api_docs import PAGE
from embedsvc.web.admin.instances import InstanceAnswer
from embedsvc.web.dialects.openai_error import ErrorAnswer
from embedsvc.web.dialects.openai_schema import EmbeddingAnswer, Model, ModelList
from embedsvc.web.endpoint import Endpoint
from embedsvc.web.openapi import REFUSALS, openapi_document
from embedsvc.web.refusals import DIALECTS, dialect_of


@pytest.fixture
def api(client: TestClient) -> dict:
    return client.get("/openapi.json").json()


def test_every_route_is_described(client: TestClient, api: dict) -> None:
    described = {(m.upper(), path) for path, methods in api["paths"].items() for m in methods}
    for route in client.app.routes:  # type: ignore[attr-defined]
        assert isinstance(route, Endpoint)
        assert (route.method, re.sub(r":\w+", "", route.path)) in described
        assert route.summary, f"{route.path} does not say what it is for"
    assert len(described) == len(client.app.routes)  # type: ignore[attr-defined]


SCHEMAS = [
    "Activity",
    "AddModelBody",
    "ByType",
    "Changes",
    "ChunkRow",
    "Chunking",
    "ClassifyAnswer",
    "ClassifyBody",
    "CohereEmbedAnswer",
    "CohereEmbedBody",
    "CohereError",
    "Command",
    "Content",
    "DeploymentBody",
    "Details",
    "EmbeddingAnswer",
    "EmbeddingBody",
    "EmbeddingRow",
    "ErrorAnswer",
    "ErrorBody",
    "ErrorInfo",
    "ExoCreateBody",
    "ExoError",
    "FeatureFlags",
    "Info",
    "InstanceAnswer",
    "InstanceBody",
    "InstanceList",
    "Item",
    "LabelRow",
    "LabelScore",
    "Memory",
    "MemoryUsage",
    "Model",
    "ModelCard",
    "ModelDeleted",
    "ModelList",
    "NodeIdentity",
    "Now",
    "OldAnswer",
    "OldBody",
    "OllamaEmbedAnswer",
    "OllamaEmbedBody",
    "OllamaError",
    "Onboarding",
    "PlaceBody",
    "PlacementPreview",
    "PlacementPreviews",
    "PoolingAnswer",
    "PoolingBody",
    "PoolingRow",
    "PredictBody",
    "Progress",
    "RerankAnswer",
    "RerankBody",
    "RerankError",
    "RerankMeta",
    "RerankResult",
    "RerankTokens",
    "SamplingDefaults",
    "ScoreAnswer",
    "ScoreBody",
    "ScoreRow",
    "Sentences",
    "ShowBody",
    "Shown",
    "SimilarityBody",
    "SimilarityParameters",
    "SparseEmbedding",
    "SparseValue",
    "State",
    "Tag",
    "Tags",
    "TeiEmbedBody",
    "TeiError",
    "TeiRank",
    "TeiRootBody",
    "TeiScore",
    "TeiSparseBody",
    "TeiTokensBody",
    "Token",
    "TokenizeBody",
    "TopologySnapshot",
    "Usage",
    "Version",
    "VoyageError",
    "VoyageRank",
    "VoyageRerankAnswer",
    "VoyageRerankBody",
    "VoyageUsage",
]
"""Clients' code is made with these names: more may come, none may go or change."""


def test_the_names_of_schemas_stay(api: dict) -> None:
    assert sorted(api["components"]["schemas"]) == SCHEMAS


def test_every_reference_is_there(api: dict) -> None:
    names: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                names.add(value["$ref"])
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(api)
    for name in names:
        _, _, group, key = name.split("/")[0:2] + name.split("/")[2:]
        assert key in api["components"][group]
    names = {f"{dialect.name}-{status}" for dialect in DIALECTS for status in REFUSALS}
    assert set(api["components"]["responses"]) == names


def test_errors_are_described_as_their_dialect_has_them(client: TestClient, api: dict) -> None:
    for path, methods in api["paths"].items():
        dialect = dialect_of(path)
        for operation in methods.values():
            for status in REFUSALS:
                name = operation["responses"][status]["$ref"].rpartition("/")[2]
                told = api["components"]["responses"][name]["content"]["application/json"]
                assert told["schema"]["$ref"].rpartition("/")[2] == dialect.answer.__name__
        strictly(client.put(path.replace("{", "").replace("}", "")).content, dialect.answer)


def test_events_are_what_is_described(client: TestClient, api: dict) -> None:
    (model,) = client.get("/v1/instances").json()["data"]
    own = f"/v1/instances/{model['id']}/events"
    for path, described, kind in (
        (own, "/v1/instances/{id}/events", InstanceAnswer),
        ("/instance/await?model_id=embed", "/instance/await", dict[str, Any]),
    ):
        answer = client.get(path)
        content = api["paths"][described]["get"]["responses"]["200"]["content"]
        (schema,) = [each["schema"] for media, each in content.items()
                     if answer.headers["content-type"].startswith(media)]  # fmt: skip
        assert schema["required"] == ["data"]
        (event,) = answer.text.split("\n\n")[1:-1]  # behind a comment
        name, _, data = event.partition(": ")
        assert [name] == list(schema["properties"])
        strictly(data.encode(), kind)


def test_parameters_of_a_query_are_described(client: TestClient, api: dict) -> None:
    told = {p["name"]: p for p in api["paths"]["/instance/await"]["get"]["parameters"]}
    assert {name: p["required"] for name, p in told.items()} == {
        "model_id": True,
        "timeout_seconds": False,
    }
    assert told["timeout_seconds"]["schema"]["maximum"] == 300
    (model,) = api["paths"]["/v1/instances"]["get"]["parameters"]
    assert (model["name"], model["in"], model["required"]) == ("model", "query", False)
    assert client.get("/v1/instances?model=embed").json()["data"]
    assert client.get("/instance/await").status_code == 400


def test_bounds_that_are_fixed_are_described(api: dict) -> None:
    schemas = api["components"]["schemas"]
    for name in ("EmbeddingBody", "CohereEmbedBody"):
        fields = schemas[name]["properties"]
        assert fields["model"]["maxLength"] == MODEL_NAME
        (types, _) = fields["embedding_types"]["anyOf"]
        assert types["maxItems"] == len(types["items"]["enum"])
    fields = schemas["EmbeddingBody"]["properties"]
    assert fields["chunks"]["anyOf"][0]["maxItems"] == CHUNKS
    assert fields["dimensions"]["anyOf"][0] == {
        "type": "integer",
        "minimum": 1,
        "maximum": DIMENSIONS,
    }


def test_answers_are_what_is_described(client: TestClient) -> None:
    body = {"model": "embed", "input": ["hello world", "a b"]}
    for extra in (
        {},
        {"encoding_format": "base64"},
        {"output_dtype": "int8"},
        {"embedding_types": ["float", "binary"]},
        {"chunks": [[[0, 5], [5, 11]], [[0, 3]]]},
    ):
        answer = client.post("/v1/embeddings", json=body | extra)
        strictly(answer.content, EmbeddingAnswer)
    strictly(client.get("/v1/models").content, ModelList)
    strictly(client.get("/v1/models/embed").content, Model)
    strictly(client.get("/v1/none").content, ErrorAnswer)


def strictly(content: bytes, kind: type) -> None:
    """The content is of that type, and there is nothing in it that the type does not have."""
    read = msgspec.json.decode(content, type=kind)
    assert msgspec.json.decode(msgspec.json.encode(read)) == msgspec.json.decode(content)


def test_the_page_takes_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert re.findall(r"(?:https?:)?//[\w.]+|@import|<link|src=", answer.text) == []
    assert PAGE.stat().st_size < 8192
    assert Path(PAGE).read_text() == answer.text


def test_the_description_is_made_once_and_not_on_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_on: list[threading.Thread] = []

    def watched(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
        made_on.append(threading.current_thread())
        return openapi_document(endpoints)

    async def loop_thread(_request: Request) -> Response:
        return Response(str(threading.get_ident()))

    monkeypatch.setattr("embedsvc.web.admin.api_docs.openapi_document", watched)
    client.app.routes.append(Endpoint("GET", "/thread", loop_thread, answer="text/plain"))  # type: ignore[attr-defined]
    first, second = client.get("/openapi.json"), client.get("/openapi.json")
    assert first.json() == second.json()
    (thread,) = made_on
    assert str(thread.ident) != client.get("/thread").text
