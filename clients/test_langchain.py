"""LangChain: as it is by default (token ids), with texts, on Azure's paths, and through Ollama."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from langchain_ollama import OllamaEmbeddings
from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from clients.support import MODEL
from tests.support.project import ROOT

DOCUMENTS = [("a cat", 3), ("a kitten", 600), ("the central bank", 4), ("interest rates", 700)]
WAYS: list[dict[str, Any]] = [{}, {"check_embedding_ctx_length": False}, {"chunk_size": 4}]


@pytest.mark.parametrize("options", WAYS)
def test_openai(server: str, right: Callable[..., None], options: dict[str, Any]) -> None:
    client = OpenAIEmbeddings(model=MODEL, base_url=f"{server}/v1", api_key="none", **options)
    right(client.embed_documents, client.embed_query)


def test_azure(server: str, right: Callable[..., None]) -> None:
    client = AzureOpenAIEmbeddings(
        azure_endpoint=server, api_key="none", api_version="2024-10-21", azure_deployment=MODEL
    )
    right(client.embed_documents, client.embed_query)


def test_ollama(server: str, right: Callable[..., None]) -> None:
    client = OllamaEmbeddings(model=MODEL, base_url=server, validate_model_on_init=True)
    right(client.embed_documents, client.embed_query)


@pytest.mark.parametrize("options", WAYS)
def test_a_document_longer_than_the_model_takes(server: str, options: dict[str, Any]) -> None:
    client = OpenAIEmbeddings(model=MODEL, base_url=f"{server}/v1", api_key="none", **options)
    texts = [f"{animal} on a mat and elsewhere. " * words for animal, words in DOCUMENTS]
    rows = np.array(client.embed_documents(texts))
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5
    near = rows @ rows.T
    for one, same in ((0, 1), (2, 3)):  # what a document is about counts, not how long it is
        strangers = [i for i in range(len(rows)) if i not in (one, same)]
        assert near[one, same] > near[one, strangers].max()


def test_a_document_longer_than_openai_takes(server: str) -> None:
    client = OpenAIEmbeddings(model=MODEL, base_url=f"{server}/v1", api_key="none")
    (row,) = client.embed_documents(["the cat sat on the mat and the dog did not. " * 2000])
    assert abs(np.linalg.norm(row) - 1) < 1e-5
    client = OpenAIEmbeddings(
        model=MODEL, base_url=f"{server}/v1", api_key="none", check_embedding_ctx_length=False
    )
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8191 tokens"):
        client.embed_documents(["the cat sat on the mat and the dog did not. " * 2000])


@pytest.mark.parametrize("way", ["default", "texts", "copied"])
def test_without_the_internet(server: str, tmp_path: Path, way: str) -> None:
    """By default it fails, with the message on the page; as the page says, it does not."""
    folder = Path(os.environ["TIKTOKEN_CACHE_DIR"]) if way == "copied" else tmp_path
    options = ", check_embedding_ctx_length=False" if way == "texts" else ""
    code = (
        "from langchain_openai import OpenAIEmbeddings\n"
        f"made = OpenAIEmbeddings(model='{MODEL}', base_url='{server}/v1', api_key='n'{options})\n"
        "assert len(made.embed_query('a cat')) == 384\n"
    )
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "TIKTOKEN_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere, capture_output=True, text=True
    )
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    message = re.search(r"^### LangChain: `(.+)`$", page, re.MULTILINE)
    assert message
    assert (done.returncode == 0) == (way != "default"), done.stderr
    assert (message[1] in done.stderr) == (way == "default")
    assert {file.name for file in Path(os.environ["TIKTOKEN_CACHE_DIR"]).iterdir()} == {
        next(iter(re.findall(r"`([0-9a-f]{40})`", (ROOT / "docs" / "langchain.md").read_text())))
    }


class Standard(EmbeddingsIntegrationTests):
    """LangChain's own tests of an integration."""

    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @pytest.fixture(autouse=True)
    def _server(self, server: str) -> None:
        type(self).url = server


class TestStandardDefault(Standard):
    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "base_url": f"{self.url}/v1", "api_key": "none"}


class TestStandardTexts(Standard):
    @property
    def embedding_model_params(self) -> dict[str, Any]:
        more = {"check_embedding_ctx_length": False}
        return {"model": MODEL, "base_url": f"{self.url}/v1", "api_key": "none"} | more


class TestStandardOllama(Standard):
    @property
    def embeddings_class(self) -> type[OllamaEmbeddings]:
        return OllamaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "base_url": self.url}


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "base_url": "http://127.0.0.1:9/v1", "api_key": "none"}
