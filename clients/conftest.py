"""A real server on the real default model, and what every client has to get from it."""

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1

import numpy as np
import openai
import pytest

from clients.support import MODEL, TEXTS, serving
from tests.support.project import ROOT

PARAPHRASES = {0: 2, 1: 4}

# Before anything is imported that looks: no telemetry, nothing from the network.
os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "ANONYMIZED_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
    "NO_PROXY": "127.0.0.1",
}


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server with the cards that the project ships."""
    with serving() as url:
        yield url


@pytest.fixture(scope="session")
def reference(server: str) -> np.ndarray:
    """The vectors of `TEXTS`, asked for one by one and as floats."""
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    rows = [
        client.embeddings.create(model=MODEL, input=text, encoding_format="float").data[0].embedding
        for text in TEXTS
    ]
    return np.array(rows)


Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]


@pytest.fixture(scope="session")
def right(reference: np.ndarray) -> Callable[..., None]:
    """Assert that a client gets the right vectors in the right order, and that they mean something.

    It is given how the client embeds documents, and one query if that is something else.
    """

    def check(
        embed: Embed,
        query: Callable[[str], Sequence[float]] | None = None,
        *,
        tolerance: float = 1e-5,
    ) -> None:
        for order in (range(len(TEXTS)), reversed(range(len(TEXTS)))):
            numbers = list(order)
            vectors = np.array(embed([TEXTS[i] for i in numbers]))
            assert vectors.shape == (len(TEXTS), 384)
            assert np.abs(vectors - reference[numbers]).max() <= tolerance
        vectors = np.array(embed(TEXTS))
        near = vectors @ vectors.T
        for one, same in PARAPHRASES.items():
            strangers = [i for i in range(len(TEXTS)) if i not in (one, same)]
            assert near[one, same] > near[one, strangers].max() + 0.2
        many = np.array(embed([TEXTS[i % len(TEXTS)] for i in range(150)]))
        assert np.abs(many - np.resize(reference, (150, 384))).max() <= tolerance
        if query is not None:
            for i, text in enumerate(TEXTS):
                assert np.abs(np.array(query(text)) - reference[i]).max() <= tolerance

    return check


@pytest.fixture(scope="session", autouse=True)
def tiktoken_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    """tiktoken's table of cl100k_base, where tiktoken looks before it downloads."""
    import sys

    sys.path.insert(0, str(ROOT))
    from embedsvc.texts.cl100k import TOKENS, _table

    folder = tmp_path_factory.mktemp("tiktoken")
    source = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    lines = [f"{base64.b64encode(_table()[i]).decode()} {i}\n" for i in range(TOKENS)]
    (folder / sha1(source.encode(), usedforsecurity=False).hexdigest()).write_text("".join(lines))
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
