"""The JDK's own HTTP client, which LangChain4j, Spring AI and others send their requests with: by
default it offers HTTP/2 with each of them."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from clients.support import MODEL, TEXTS
from tests.support.programs import program

SOURCE = Path(__file__).parent / "java" / "Embed.java"


def java(
    server: str, how: str, requests: Sequence[object], model: str = MODEL
) -> list[list[list[float]]]:
    """The vectors of each of these requests, all sent by one client."""
    done = subprocess.run(
        [program("java"), SOURCE, f"{server}/v1/embeddings", how],
        input="".join(json.dumps({"model": model, "input": each}) + "\n" for each in requests),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    assert len(answers) == len(requests)
    return [[row["embedding"] for row in answer] for answer in answers]


def test_java(server: str, right: Callable[..., None]) -> None:
    right(lambda texts: java(server, "length", [list(texts)])[0])


@pytest.mark.parametrize("how", ["length", "chunked", "expect", "together"])
def test_java_over_connections_that_are_kept(server: str, reference: np.ndarray, how: str) -> None:
    vectors = np.array(java(server, how, TEXTS * 5))[:, 0]
    assert np.abs(vectors - np.tile(reference, (5, 1))).max() <= 1e-5


def test_java_shows_what_is_wrong(server: str) -> None:
    with pytest.raises(AssertionError, match=r"404 .*The model `x` does not exist"):
        java(server, "length", ["a"], model="x")
