"""What becomes of inputs that are too long: who may say it, and what is each dialect's custom."""

import logging
from pathlib import Path

import numpy as np
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from embedsvc.bounds import TEXT_CHARACTERS
from embedsvc.errors import BadRequest
from embedsvc.texts.cl100k import ids_by_bytes
from embedsvc.texts.requests import read_inputs
from tests.support.app import serve

LONG = " ".join("abcdefghij"[i % 10] for i in range(40))  # 42 tokens; the limit is 32
ROUTES = [
    ("/v1/embeddings", "input", "split"),
    ("/embeddings", "input", "split"),
    ("/openai/v1/embeddings", "input", "split"),
    ("/openai/deployments/org/tiny/embeddings?api-version=2024-10-21", "input", "split"),
    ("/v1/engines/org/tiny/embeddings", "input", "split"),
    ("/api/embed", "input", "truncated"),
    ("/api/embeddings", "prompt", "truncated"),
    ("/v2/embed", "texts", "truncated"),
    ("/embed", "inputs", "refused"),
    ("/", "inputs", "refused"),
]
SAID = {"error": "refused", "end": "truncated", "start": "truncated", "chunk": "split"}


def outcome(answer: Response) -> str:
    """What became of a text that is too long."""
    if answer.status_code == 400:
        assert "maximum context length is 32 tokens, however you requested 42" in answer.text
        return "refused"
    assert answer.status_code == 200, answer.text
    told = [name for name in ("split", "truncated") if answer.headers.get(f"x-embedsvc-{name}")]
    return told[0]


def post(client: TestClient, path: str, field: str, **more: object) -> Response:
    value = [LONG] if field == "texts" else LONG
    return client.post(path, json={"model": "org/tiny", field: value} | more)


@pytest.mark.parametrize(("path", "field", "expected"), ROUTES)
def test_each_dialect_does_as_its_own_servers_do(
    client: TestClient, path: str, field: str, expected: str
) -> None:
    assert outcome(post(client, path, field)) == expected


@pytest.mark.parametrize("setting", [None, *SAID])
@pytest.mark.parametrize("card", [None, *SAID])
def test_the_request_says_before_the_card_and_the_card_before_the_setting(
    tmp_path: Path, tiny_folder: Path, card: str | None, setting: str | None
) -> None:
    said = f"truncate = '{card}'\n" if card else ""
    (tmp_path / "models.toml").write_text(f"[models.'org/tiny']\npath = '{tiny_folder}'\n{said}")
    with serve(models=tmp_path / "models.toml", truncate=setting) as client:
        for path, field, custom in ROUTES[3::2]:
            expected = SAID[card or setting] if card or setting else custom
            assert outcome(post(client, path, field)) == expected
        for asked, expected in SAID.items():
            answer = post(client, "/v1/embeddings", "input", truncate=asked)
            assert outcome(answer) == expected
        assert outcome(post(client, "/api/embed", "input", truncate=True)) == "truncated"
        assert outcome(post(client, "/v2/embed", "texts", truncate="NONE")) == "refused"
        cut = (card or setting or "error") != "error"
        assert client.get("/info").json()["auto_truncate"] is cut


def test_long_texts_and_ids_are_embedded_whole(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    texts = [LONG, "a", " ".join([LONG] * 200)]
    answer = client.post("/v1/embeddings", json={"model": "org/tiny", "input": texts})
    assert answer.status_code == 200
    assert answer.headers["x-embedsvc-split"] == "2"
    assert answer.json()["usage"]["prompt_tokens"] > 8000
    rows = np.array([row["embedding"] for row in answer.json()["data"]])
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    ids = [ids_by_bytes()[b"a"], *[ids_by_bytes()[b" a"]] * 8190]
    answer = client.post("/v1/embeddings", json={"model": "org/tiny", "input": [ids]})
    assert answer.status_code == 200
    assert 'embedsvc_split_total{model="org/tiny"} 3.0' in client.get("/metrics").text
    warned = [record.getMessage() for record in caplog.records if "in parts" in record.message]
    assert len(warned) == 1
    assert "model org/tiny takes 32 tokens" in warned[0]
    ids.append(ids[-1])
    refused = client.post("/v1/embeddings", json={"model": "org/tiny", "input": [ids]})
    message = refused.json()["error"]["message"]
    assert refused.status_code == 400
    assert "maximum context length is 8191 tokens, however you requested 8192 tokens" in message
    assert 'send "truncate": "end"' in message


def test_a_text_beyond_openais_limit_is_split_if_asked(client: TestClient) -> None:
    body = {"model": "org/tiny", "input": "a " * 9000}
    refused = client.post("/v1/embeddings", json=body)
    assert refused.status_code == 400
    assert "maximum context length is 8191 tokens" in refused.text
    for truncate in ("chunk", "end", "start"):
        answer = client.post("/v1/embeddings", json=body | {"truncate": truncate})
        assert answer.status_code == 200


def test_what_a_split_text_costs_counts_for_the_request(cards_file: Path) -> None:
    # 30 fit and 27 more in each part, with special tokens: 42 tokens become 32 and 15.
    with serve(models=cards_file, max_request_tokens=47) as client:
        assert outcome(post(client, "/v1/embeddings", "input")) == "split"
    with serve(models=cards_file, max_request_tokens=46) as client:
        answer = post(client, "/v1/embeddings", "input")
        assert answer.json()["error"]["code"] == "max_tokens_per_request"


@pytest.mark.parametrize("characters", [16_384, 16_385])
def test_a_prompt_has_an_end(client: TestClient, characters: int) -> None:
    fields = {"prompt": " " * characters, "input": ["a"] * 3}
    answer = client.post("/v1/embeddings", json={"model": "org/tiny"} | fields)
    if characters == 16_384:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 400
        assert "a prompt may have 16384 characters, and this one has 16385" in answer.text


# --- /tokenize -----------------------------------------------------------------------------------


def test_the_tokens_of_a_long_text_are_told_up_to_the_limit_of_a_request(cards_file: Path) -> None:
    with serve(models=cards_file, max_request_tokens=60_000) as client:
        answer = client.post("/tokenize", json={"inputs": ["a b", "a " * 50_000]})
        assert answer.status_code == 200
        short, long = answer.json()
        assert [token["text"] for token in short] == ["[CLS]", "a", "b", "[SEP]"]
        assert len(long) == 50_002
        assert long[-2] == {"id": 4, "text": "a", "special": False, "start": 99_998, "stop": 99_999}
        refused = client.post("/tokenize", json={"inputs": ["a " * 40_000] * 2})
        assert refused.status_code == 400
        assert "max 60000 tokens per request" in refused.json()["error"]


def test_a_list_of_more_ids_than_any_text_has_is_refused_before_they_are_looked_at() -> None:
    class Unseen(list[int]):
        def __iter__(self):
            raise AssertionError("looked at")

    with pytest.raises(BadRequest, match="array length must be 1048576 or less"):
        read_inputs(Unseen([1] * (TEXT_CHARACTERS + 1)))
