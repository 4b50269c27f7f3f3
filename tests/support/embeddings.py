"""What `POST /v1/embeddings` answers."""

import numpy as np
from starlette.testclient import TestClient


def embed(client: TestClient, **fields: object):
    """The answer to `hello`, or to other fields, which must be a 200."""
    answer = client.post("/v1/embeddings", json={"model": "org/tiny", "input": "hello"} | fields)
    assert answer.status_code == 200, answer.text
    return answer


def vectors(client: TestClient, **fields: object) -> np.ndarray:
    """The vectors in it, (B, D)."""
    return np.array([row["embedding"] for row in embed(client, **fields).json()["data"]])
