"""Whatever JSON a client sends, on every route: a 400 that names the field, no bug in the log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from starlette.testclient import TestClient

from embedsvc.bounds import JSON_CONTAINERS, JSON_VALUES
from embedsvc.settings import Settings
from embedsvc.web.app import create_app
from embedsvc.web.bodies import json_body
from embedsvc.web.bodies.json_body import LARGE, decode
from embedsvc.web.endpoint import Endpoint
from tests.support.app import serve

ROUTES = [
    route
    for route in create_app(Settings()).routes
    if isinstance(route, Endpoint) and route.body is not None
]
PATHS = [route.path.replace("{model:path}", "tiny") for route in ROUTES]
RIGHT = {"model": "tiny", "model_id": "tiny", "input": "a", "inputs": "a", "prompt": "a"}
FIELDS = [
    (path, field)
    for path, route in zip(PATHS, ROUTES, strict=True)
    for field in msgspec.structs.fields(route.body)
]


@pytest.fixture(scope="module")
def client(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("bodies") / "models.toml"
    file.write_text(f"[models.tiny]\npath = '{tiny_folder}'\npreload = true\n")
    with serve(models=file, max_request_tokens=1000) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_logged_as_a_bug(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR] == []


def refused(client: TestClient, path: str, body: bytes) -> str:
    """What is said of a body that is wrong."""
    answer = client.post(path, content=body)
    assert answer.status_code == 400, answer.text[:300]
    assert len(answer.content) < 1000
    said = answer.json()
    found = next(said[name] for name in ("message", "detail", "error") if name in said)
    return found["message"] if isinstance(found, dict) else found


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=[f"{p}-{f.name}" for p, f in FIELDS])
def test_a_wrong_type_of_any_field_is_refused_by_its_name(
    client: TestClient, path: str, field: msgspec.structs.FieldInfo
) -> None:
    fields = {"model": "tiny", "texts": ["a"]} if path.startswith("/v2") else RIGHT
    if path == "/similarity":
        fields = {"inputs": {"source_sentence": "a", "sentences": ["b"]}}
    wrong: list[Any] = [{"a": [1]}, [[{"b": 1}]], 1.5]
    kinds = str(field.type)
    if any(kind in kinds for kind in ("dict", "Chunking", "SimilarityParameters")):
        wrong.remove({"a": [1]})
    if "float" in kinds:
        wrong.remove(1.5)
    for value in wrong:
        body = json.dumps(fields | {field.name: value}).encode()
        assert f"'{field.name}" in refused(client, path, body)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("depth", [700, 5000, 60_000])
def test_json_nested_without_end_is_a_400_wherever_it_is(
    client: TestClient, path: str, depth: int
) -> None:
    fields = {name: json.dumps(value).encode() for name, value in RIGHT.items()}
    for begin, end in ((b'{"a":', b"}"), (b"[", b"]")):
        deep = begin * depth + b"1" + end * depth
        refused(client, path, deep)
        for name in ("input", "inputs", "texts", "prompt", "instance", "model", "name", "model_id"):
            if (path, name) in {(path, field.name) for path, field in FIELDS}:
                sent = fields | {name: deep}
                if name == "instance":
                    del sent["model_id"]
                inside = b",".join(b'"%b":%b' % (n.encode(), v) for n, v in sent.items())
                refused(client, path, b"{%b}" % inside)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bomb", [b"[],", b"{},", b"[1],", b'"",', b"1,"])
def test_json_of_more_values_than_may_be_is_refused_before_it_is_decoded(
    client: TestClient, path: str, bomb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = JSON_VALUES + 1000
    body = b'{"x": [%b0], "input": [%b0]}' % (bomb * most, bomb * most)
    monkeypatch.setattr(msgspec.json, "decode", None)
    said = refused(client, path, body)
    assert "values in its JSON" in said
    assert str(most) in said
    assert str(JSON_CONTAINERS) in said


def test_commas_and_brackets_in_a_text_are_no_values(client: TestClient) -> None:
    text = 'a, [b], {"c": 1} ' * (JSON_VALUES // 4)
    assert len(text) > LARGE
    answer = client.post("/api/embed", json={"model": "tiny", "input": [text, "a"]})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_utf_8_is_said_where(client: TestClient, path: str) -> None:
    names = (b"model", b"model_id", b"input", b"inputs", b"texts", b"prompt", b"name")
    for wrong in (b"\xff", b"\xed\xa0\x80", b"\xc3\x28", b"a\x80"):
        body = b"{%b}" % b",".join(b'"%b": "%b"' % (name, wrong) for name in names)
        if path.startswith("/v2"):
            body = b'{"model": "%b"}' % wrong
        place = body.index(wrong) + wrong.startswith(b"a")
        assert f"byte {place} is not UTF-8" in refused(client, path, body)
    assert "byte 2 is not UTF-8" in refused(client, path, b'{"\xff')


HALF = b"cut \\ud83d"


@pytest.mark.parametrize("filler", [0, LARGE])
def test_half_a_pair_is_u_fffd_on_every_route(client: TestClient, filler: int) -> None:
    more = b'"\\udc00": ["%b", {"\\ud83d": "%b"}]' % (HALF, b"x" * filler)

    def post(path: str, fields: bytes) -> Any:
        answer = client.post(path, content=b'{"model": "tiny", %b, %b}' % (fields, more))
        assert answer.status_code == 200, answer.text
        return answer.json()

    mended = client.post("/v1/embeddings", json={"model": "tiny", "input": "cut \ufffd"}).json()
    expected = mended["data"][0]["embedding"]
    found = post("/v1/embeddings", b'"input": ["fine", "%b"]' % HALF)
    assert found["data"][1]["embedding"] == expected
    assert post("/api/embed", b'"input": "%b"' % HALF)["embeddings"] == [expected]
    assert post("/api/embeddings", b'"prompt": "%b"' % HALF)["embedding"] == expected
    assert post("/embed", b'"inputs": ["%b"]' % HALF) == [expected]
    cohere = post("/v2/embed", b'"texts": ["%b"]' % HALF)
    assert (cohere["texts"], cohere["embeddings"]["float"]) == (["cut \ufffd"], [expected])
    content = b'[{"content": [{"type": "text", "text": "%b"}]}]' % HALF
    assert post("/v2/embed", b'"inputs": %b' % content)["texts"] == ["cut \ufffd"]
    assert post("/tokenize", b'"inputs": "%b"' % HALF)[0]


class Sample(msgspec.Struct):
    name: str
    side: Literal["left", "right"] | bool | None = None
    sides: list[Literal["left", "right"]] | None = None
    inner: "Sample | None" = None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"side": "left"}', "Missing required parameter: 'name'."),
        ('{"name": "a", "inner": {}}', "Missing required parameter: 'inner.name'."),
        (
            '{"name": "a", "side": "up"}',
            "Invalid value for 'side' = up. Supported values: ['left', 'right'].",
        ),
        (
            '{"name": "a", "side": 1}',
            "Invalid value for 'side' = 1. Supported values: ['left', 'right'].",
        ),
        (
            '{"name": "a", "sides": ["left", "u\\np"]}',
            "Invalid value for 'sides[1]' = u\\np. Supported values: ['left', 'right'].",
        ),
        (
            '{"name": "a", "inner": {"name": "b", "side": "up"}}',
            "Invalid value for 'inner.side' = up.",
        ),
        ('{"name": null}', "Invalid 'name': expected a string, not null."),
        ('{"name": "a", "side": "%s"}' % ("x" * 99), f"Invalid value for 'side' = {'x' * 64}…."),
    ],
)
def test_what_is_wrong_is_said_by_field_in_words(body: str, said: str) -> None:
    with pytest.raises(json_body.BadRequest) as caught:
        decode(body.encode(), Sample)
    assert caught.value.message.startswith(said)
