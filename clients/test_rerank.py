"""Rerankers: Cohere's clients, and what LangChain, LlamaIndex, Haystack, litellm and mem0 call."""

import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import cohere
import httpx2
import litellm
import pytest
from haystack.dataclasses import Document as HaystackDocument
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaIndexCohere
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from mem0.configs.rerankers.cohere import CohereRerankerConfig
from mem0.reranker.cohere_reranker import CohereReranker

from clients.support import MODEL, TEXTS, serving
from tests.support.project import ROOT

QUERY = "hello"
DOCUMENTS = ["a b c", "hello world", "b hello", "you see the world"]
RANKER = "ranker"
Ranks = list[tuple[str, float]]


class Served(NamedTuple):
    """A server over a tiny reranker, and what it gives for `QUERY` and `DOCUMENTS`."""

    url: str
    right: Ranks
    """The documents with their scores, the best first."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("rankers")
    write_models = [ROOT / ".venv/bin/python", "-m", "tests.support.rerankers", folder]
    subprocess.run(write_models, cwd=ROOT, check=True)
    with serving("--models", str(folder / "models.toml")) as url:
        body = {"model": RANKER, "query": QUERY, "documents": DOCUMENTS}
        results = httpx2.post(f"{url}/v1/rerank", json=body).json()["results"]
        ranks = [(DOCUMENTS[each["index"]], each["relevance_score"]) for each in results]
        assert len({score for _, score in ranks}) == len(DOCUMENTS)
        yield Served(url, ranks)


def test_cohere_v2(served: Served) -> None:
    client = cohere.ClientV2(api_key="none", base_url=served.url)
    answer = client.rerank(model=RANKER, query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=100)
    assert [(DOCUMENTS[r.index], r.relevance_score) for r in answer.results] == served.right
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1
    with pytest.raises(cohere.NotFoundError) as caught:
        client.rerank(model="x", query=QUERY, documents=DOCUMENTS)
    assert caught.value.body["message"].startswith("The model `x` does not exist")


def test_cohere_v1(served: Served) -> None:
    client = cohere.Client(api_key="none", base_url=served.url)
    documents = [{"text": text, "n": i} for i, text in enumerate(DOCUMENTS)]
    answer = client.rerank(
        model="rerank-v3.5", query=QUERY, documents=documents, top_n=2, return_documents=True
    )
    found = [(r.document.text, r.relevance_score) for r in answer.results if r.document]
    assert found == served.right[:2]
    named = client.rerank(
        model=RANKER, query=QUERY, documents=[{"a": "b", "c": "d"}], rank_fields=["c", "a"]
    )
    same = client.rerank(model=RANKER, query=QUERY, documents=["c: d\na: b\n"])
    assert named.results[0].relevance_score == same.results[0].relevance_score


def test_cohere_finds_what_is_meant_with_the_default_model(server: str) -> None:
    client = cohere.ClientV2(api_key="none", base_url=server)
    answer = client.rerank(model=MODEL, query="monetary policy", documents=TEXTS, top_n=2)
    assert {result.index for result in answer.results} == {1, 4}


def test_langchain(served: Served) -> None:
    client = CohereRerank(
        model=RANKER, cohere_api_key="none", base_url=served.url, top_n=len(DOCUMENTS)
    )
    found = client.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    assert [(d.page_content, d.metadata["relevance_score"]) for d in found] == served.right


@pytest.mark.parametrize("name", ["cohere", "tei"])
def test_llama_index(served: Served, name: str) -> None:
    if name == "cohere":
        client = LlamaIndexCohere(
            api_key="none", base_url=served.url, model=RANKER, top_n=len(DOCUMENTS)
        )
    else:
        client = TextEmbeddingInference(base_url=served.url, top_n=len(DOCUMENTS))
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in DOCUMENTS]
    found = client.postprocess_nodes(nodes, query_str=QUERY)
    assert [(node.node.text, node.score) for node in found] == served.right


@pytest.mark.parametrize("name", ["cohere", "tei"])
def test_haystack(served: Served, name: str) -> None:
    documents = [HaystackDocument(content=text) for text in DOCUMENTS]
    if name == "cohere":
        key = Secret.from_token("none")
        ranker = CohereRanker(model=RANKER, api_key=key, api_base_url=served.url)
    else:
        ranker = HuggingFaceTEIRanker(url=served.url, top_k=len(DOCUMENTS))
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    assert [(document.content, document.score) for document in found] == served.right


def test_haystack_shows_what_is_wrong(served: Served) -> None:
    ranker = HuggingFaceTEIRanker(url=served.url, max_retries=1)
    with pytest.raises(RuntimeError, match=r'"error":"Invalid .query.: it cannot be an empty'):
        ranker.run(query="", documents=[HaystackDocument(content="a")])


@pytest.mark.parametrize(
    ("provider", "base"),
    [
        ("cohere", ""),
        ("infinity", "/infinity"),
        ("hosted_vllm", "/v1"),
        ("huggingface", ""),
        ("jina_ai", "/v1"),
        ("voyage", "/voyage/v1"),
    ],
)
def test_litellm(served: Served, provider: str, base: str) -> None:
    answer = litellm.rerank(
        model=f"{provider}/{RANKER}",
        query=QUERY,
        documents=DOCUMENTS,
        api_base=f"{served.url}{base}",
        api_key="none",
    )
    found = [(each["document"]["text"], each["relevance_score"]) for each in answer.results]
    assert found == served.right


def test_litellm_shows_what_is_wrong(served: Served) -> None:
    with pytest.raises(litellm.NotFoundError, match="The model `x` does not exist"):
        litellm.rerank(
            model="hosted_vllm/x",
            query=QUERY,
            documents=DOCUMENTS,
            api_base=served.url,
            api_key="none",
        )


def test_mem0(served: Served) -> None:
    ranker = CohereReranker(CohereRerankerConfig(model=RANKER, api_key="none"))
    # It takes no address, but for the variable that Cohere's client reads when it is imported.
    ranker.client = cohere.Client("none", base_url=served.url)
    found = ranker.rerank(QUERY, [{"memory": text} for text in DOCUMENTS])
    assert [(each["memory"], each["rerank_score"]) for each in found] == served.right
