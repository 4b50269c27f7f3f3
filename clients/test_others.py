"""litellm, Haystack, Chroma, and the clients of Ollama and Cohere."""

from collections.abc import Callable, Sequence

import chromadb
import cohere
import litellm
import ollama
import pytest
from chromadb.utils.embedding_functions import (
    HuggingFaceEmbeddingServer,
    OllamaEmbeddingFunction,
    OpenAIEmbeddingFunction,
)
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.dataclasses import Document
from haystack.utils import Secret

from clients.support import MODEL, TEXTS


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "lm_studio"])
def test_litellm(server: str, right: Callable[..., None], provider: str) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        answer = litellm.embedding(
            f"{provider}/{MODEL}", input=list(texts), api_base=f"{server}/v1", api_key="none"
        )
        assert answer.usage.prompt_tokens > len(texts)
        return [row["embedding"] for row in answer.data]

    right(embed)


def test_litellm_ollama(server: str, right: Callable[..., None]) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        answer = litellm.embedding(f"ollama/{MODEL}", input=list(texts), api_base=server)
        return [row["embedding"] for row in answer.data]

    right(embed)


def test_litellm_shows_what_is_wrong(server: str) -> None:
    with pytest.raises(litellm.NotFoundError, match="The model `x` does not exist"):
        litellm.embedding("openai/x", input=["a"], api_base=f"{server}/v1", api_key="none")


def test_haystack(server: str, right: Callable[..., None]) -> None:
    common = {"api_key": Secret.from_token("none"), "api_base_url": f"{server}/v1", "model": MODEL}
    documents = OpenAIDocumentEmbedder(**common, progress_bar=False)
    query = OpenAITextEmbedder(**common)

    def embed(texts: Sequence[str]) -> list[list[float]]:
        done = documents.run([Document(content=text) for text in texts])
        assert done["meta"]["usage"]["total_tokens"] > len(TEXTS)
        return [document.embedding for document in done["documents"]]

    right(embed, lambda text: query.run(text)["embedding"])


def test_chroma(server: str, right: Callable[..., None]) -> None:
    openai = OpenAIEmbeddingFunction(api_key="none", api_base=f"{server}/v1", model_name=MODEL)
    right(openai)
    right(OllamaEmbeddingFunction(url=server, model_name=MODEL))
    right(HuggingFaceEmbeddingServer(url=f"{server}/embed"))
    right(HuggingFaceEmbeddingServer(url=server))
    collection = chromadb.EphemeralClient().create_collection("texts", embedding_function=openai)
    collection.add(ids=[str(i) for i in range(len(TEXTS))], documents=TEXTS)
    found = collection.query(query_texts=["monetary policy"], n_results=2)
    assert set(found["ids"][0]) == {"1", "4"}


def test_ollama(server: str, right: Callable[..., None]) -> None:
    client = ollama.Client(host=server)
    right(
        lambda texts: client.embed(MODEL, list(texts)).embeddings,
        lambda text: client.embeddings(MODEL, text).embedding,
    )
    assert MODEL in {model.model for model in client.list().models}
    assert client.show(f"{MODEL}:latest").capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed("x", "a")
    assert caught.value.error.startswith("The model `x` does not exist")  # words, no dict's repr
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed(MODEL, ["a"] * 2049)
    assert caught.value.error == "Invalid 'input': array length must be 2048 or less."
    with pytest.raises(ollama.ResponseError) as caught:
        client.pull("x")  # there is no such model
    assert caught.value.error == "Invalid URL (POST /api/pull)"


def test_cohere(server: str, right: Callable[..., None]) -> None:
    client = cohere.ClientV2(api_key="none", base_url=server)

    def embed(texts: Sequence[str]) -> list[list[float]]:
        answer = client.embed(
            model=MODEL, input_type="search_document", embedding_types=["float"], texts=list(texts)
        )
        assert answer.embeddings.float_ is not None
        return answer.embeddings.float_

    right(embed)
    with pytest.raises(cohere.NotFoundError) as caught:
        client.embed(model="x", input_type="search_query", texts=["a"])
    assert set(caught.value.body) == {"message"}
    assert caught.value.body["message"].startswith("The model `x` does not exist")
