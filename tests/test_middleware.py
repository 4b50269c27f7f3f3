"""The headers and the paths of every request, whichever route it is for."""

import pytest
from starlette.testclient import TestClient

BODY = {"model": "embed", "input": "hello"}


def test_every_answer_says_what_openais_say(client: TestClient) -> None:
    answers = [client.post("/v1/embeddings", json=BODY), client.get("/v1/models")]
    for answer in answers:
        assert answer.headers["openai-version"] == "2020-10-01"
        assert int(answer.headers["openai-processing-ms"]) >= 0
        assert answer.headers["x-request-id"].startswith("req_")
    assert answers[0].headers["openai-model"] == "org/tiny"
    assert answers[0].headers["x-request-id"] != answers[1].headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [("my-id.1:2/3", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("", False)],
)
def test_a_clients_own_request_id_is_echoed_if_it_is_sane(
    client: TestClient, sent: str, echoed: bool
) -> None:
    answer = client.get("/health", headers={"x-request-id": sent})
    assert (answer.headers["x-request-id"] == sent) is echoed
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "path", ["/v1/embeddings/", "//v1/embeddings", "/v1//embeddings//", "/embeddings/"]
)
def test_slashes_too_many_are_overlooked_without_a_redirect(client: TestClient, path: str) -> None:
    answer = client.post(f"http://localhost{path}", json=BODY, follow_redirects=False)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/org/tiny/embeddings?api-version=2024-02-01",
        "/openai/deployments/org%2Ftiny/embeddings?api-version=2024-02-01",
        "/v1/engines/org/tiny/embeddings",
    ],
)
def test_azures_paths_name_the_model_and_win(client: TestClient, path: str) -> None:
    for body in ({"input": "hello"}, {"input": "hello", "model": "text-embedding-ada-002"}):
        answer = client.post(path, json=body, headers={"api-key": "any"})
        assert answer.status_code == 200
        assert answer.json()["model"] == "org/tiny"


def test_models_are_found_at_every_base(client: TestClient) -> None:
    for base in ("/v1", "", "/openai/v1"):
        assert client.get(f"{base}/models").json() == client.get("/v1/models").json()
        assert client.get(f"{base}/models/org%2Ftiny").json()["id"] == "org/tiny"
