"""A tiny reranker and other tiny models, and an app over them that is asked for scores."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from httpx2 import Response
from starlette.testclient import TestClient

from tests.support.app import serve
from tests.support.checkpoints import write_bert
from tests.support.classifiers import CLASSIFIERS
from tests.support.shapes import WIDTH, linear

ONE_LABEL = replace(
    CLASSIFIERS["bert-scores"],
    config={
        name: value
        for name, value in CLASSIFIERS["bert-scores"].config.items()
        if name != "label2id"
    }
    | {"id2label": {"0": "LABEL_0"}},
    shapes=CLASSIFIERS["bert-scores"].shapes | linear("classifier", WIDTH, 1),
)
DOCUMENTS = ["a b c", "hello world", "", "b hello", "you see the world"]


def write_models(folder: Path, only: str | None = None) -> Path:
    """A cards file: `org/tiny` embeds, `ranker` gives one score, `sorter` three. With `only`,
    only the model for that task is there."""
    write_bert(folder / "tiny")
    ONE_LABEL.write(folder / "ranker")
    CLASSIFIERS["bert-scores"].write(folder / "sorter")
    file = folder / "models.toml"
    cards = {
        "embed": '[models."org/tiny"]\npath = "tiny"\naliases = ["embed"]\n',
        "rerank": '[models.ranker]\npath = "ranker"\ntask = "rerank"\naliases = ["rerank-v3.5"]\n',
        "classify": '[models.sorter]\npath = "sorter"\ntask = "classify"\n',
    }
    wanted = cards.values() if only is None else [cards[only]]
    file.write_text("".join(wanted), encoding="utf-8")
    return file


@contextmanager
def serve_models(folder: Path, *, only: str | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client of the app over these models."""
    with serve(models=write_models(folder, only), **settings) as client:
        yield client


def post(client: TestClient, path: str, **body: Any) -> Response:
    """The answer to a request, which must be a success."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def logits(
    client: TestClient, query: str, documents: list[str], model: str = "ranker"
) -> list[float]:
    """The model's own outputs for pairs, each asked for by itself, in the documents' order."""
    return [
        post(
            client, "/score", model=model, text_1=query, text_2=document, use_activation=False
        ).json()["data"][0]["score"]
        for document in documents
    ]


def sigmoid(values: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def best_first(values: Any) -> list[int]:
    """The numbers of values, the highest first, equal ones as they come."""
    return np.argsort(-np.asarray(values), kind="stable").tolist()


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
