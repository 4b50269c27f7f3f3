"""LlamaIndex: its OpenAI, OpenAI-like, Ollama and TEI embeddings."""

import asyncio
from collections.abc import Callable

import numpy as np
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

from clients.support import MODEL, TEXTS


def check(client, right: Callable[..., None]) -> None:
    right(client.get_text_embedding_batch, client.get_query_embedding)
    # In one event loop: the clients keep connections.
    found = asyncio.run(client.aget_text_embedding_batch(TEXTS))
    assert np.allclose(found, client.get_text_embedding_batch(TEXTS), atol=1e-6)


def test_openai(server: str, right: Callable[..., None]) -> None:
    check(OpenAIEmbedding(model_name=MODEL, api_base=f"{server}/v1", api_key="none"), right)


def test_openai_by_one_of_its_own_names(server: str, right: Callable[..., None]) -> None:
    client = OpenAIEmbedding(
        model="text-embedding-3-small", api_base=f"{server}/v1", api_key="none"
    )
    check(client, right)


def test_openai_like(server: str, right: Callable[..., None]) -> None:
    check(OpenAILikeEmbedding(model_name=MODEL, api_base=f"{server}/v1", api_key="none"), right)


def test_ollama(server: str, right: Callable[..., None]) -> None:
    check(OllamaEmbedding(model_name=MODEL, base_url=server), right)


def test_text_embeddings_inference(server: str, right: Callable[..., None]) -> None:
    check(TextEmbeddingsInference(model_name=MODEL, base_url=server, truncate_text=True), right)
