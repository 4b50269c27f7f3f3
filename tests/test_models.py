"""The cards that are shipped: what is known of the models, said in one place and checked here."""

import re

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.texts.prompts import split_name
from tests.support.models_table import facts
from tests.support.project import ROOT

CARDS = read_cards(ROOT / "models.toml")  # parses, and no name is there twice
BGE = "Represent this sentence for searching relevant passages: "
INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
PERMITTED = ("apache-2.0", "mit", "Gemma's terms of use")

QUERY_DOCUMENT = {
    "all-MiniLM-L6-v2": None,
    "all-mpnet-base-v2": None,
    "bge-small-en-v1.5": (BGE, ""),
    "bge-base-en-v1.5": (BGE, ""),
    "bge-large-en-v1.5": (BGE, ""),
    "bge-m3": None,
    "bge-m3-hybrid": None,
    "e5-small-v2": ("query: ", "passage: "),
    "e5-base-v2": ("query: ", "passage: "),
    "e5-large-v2": ("query: ", "passage: "),
    "multilingual-e5-small": ("query: ", "passage: "),
    "multilingual-e5-base": ("query: ", "passage: "),
    "multilingual-e5-large": ("query: ", "passage: "),
    "multilingual-e5-large-instruct": (f"{INSTRUCT}Query: ", ""),
    "gte-base": None,
    "mxbai-embed-large-v1": (BGE, ""),
    "snowflake-arctic-embed-xs": (BGE, ""),
    "snowflake-arctic-embed-s": (BGE, ""),
    "snowflake-arctic-embed-m": (BGE, ""),
    "snowflake-arctic-embed-m-v1.5": (BGE, ""),
    "snowflake-arctic-embed-l": (BGE, ""),
    "snowflake-arctic-embed-m-v2.0": ("query: ", ""),
    "snowflake-arctic-embed-l-v2.0": ("query: ", ""),
    "nomic-embed-text-v1": ("search_query: ", "search_document: "),
    "nomic-embed-text-v1.5": ("search_query: ", "search_document: "),
    "nomic-embed-text-v2-moe": ("search_query: ", "search_document: "),
    "modernbert-embed-base": ("search_query: ", "search_document: "),
    "embeddinggemma-300m": ("task: search result | query: ", "title: none | text: "),
    "embeddinggemma-2": None,
    "Qwen3-Embedding-0.6B": (f"{INSTRUCT}Query:", ""),  # no space at the end
    "Qwen3-Embedding-4B": (f"{INSTRUCT}Query:", ""),
    "Qwen3-Embedding-8B": (f"{INSTRUCT}Query:", ""),
    "e5-mistral-7b-instruct": (f"{INSTRUCT}Query: ", ""),
    "nomic-embed-code": ("Represent this query for searching relevant code: ", ""),
    "harrier-oss-v1-270m": (f"{INSTRUCT}Query: ", ""),
    "harrier-oss-v1-0.6b": (f"{INSTRUCT}Query: ", ""),
    "F2LLM-v2-80M": (f"{INSTRUCT}Query: ", ""),
    "F2LLM-v2-0.6B": (f"{INSTRUCT}Query: ", ""),
    "voyage-4-nano": (
        "Represent the query for retrieving supporting documents: ",
        "Represent the document for retrieval: ",
    ),
    "pplx-embed-v1-0.6b": None,
    "jina-embeddings-v2-base-en": None,
    "static-retrieval-mrl-en-v1": None,
    "potion-base-8M": None,
}


@pytest.mark.parametrize("name", QUERY_DOCUMENT)
def test_prompts_are_those_of_the_models(name: str) -> None:
    prompts = CARDS.by_id[name].prompts
    known = QUERY_DOCUMENT[name]
    found = prompts and (prompts["query"], prompts["document"])
    assert found == known


def test_pooling_is_stated_only_where_the_repository_does_not_say_it() -> None:
    stated = {card.id: card.pooling for card in CARDS.by_id.values() if card.pooling}
    assert stated == {"bge-m3": "cls"}


def test_vectors_are_layer_normalised_before_they_are_cut_where_nomic_says_so() -> None:
    assert [card.id for card in CARDS.by_id.values() if card.layer_norm] == [
        "nomic-embed-text-v1.5"
    ]


def test_no_card_asks_for_a_dtype() -> None:
    """A GPU finds out what a model needs, and a processor computes in float32."""
    assert [card.id for card in CARDS.by_id.values() if card.dtype] == []


@pytest.mark.parametrize("card", CARDS.by_id.values(), ids=lambda card: card.id)
def test_a_card_says_where_its_model_comes_from(card: Card) -> None:
    assert card.repo is not None
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", card.repo)
    assert card.revision is None or re.fullmatch("[0-9a-f]{40}", card.revision)
    assert any("/" in alias for alias in card.aliases), "the repository's own name is a name for it"
    assert list(card.dimensions) == sorted(card.dimensions, reverse=True)


def test_licences_permit_every_use() -> None:
    assert facts().keys() == CARDS.by_id.keys()
    for name, fact in facts().items():
        assert fact.licence in PERMITTED, name


def test_names_that_clients_have_built_in_are_models() -> None:
    for name in ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"):
        assert name in CARDS.by_name
    for name in (
        "nomic-embed-text",
        "mxbai-embed-large",
        "all-minilm",
        "bge-m3",
        "qwen3-embedding",
    ):
        assert name in CARDS.by_name, "as Ollama calls it"


def test_rerankers_that_clients_have_built_in_are_models() -> None:
    for name in (
        "rerank-english-v3.0",
        "rerank-multilingual-v3.0",
        "rerank-v3.5",
        "rerank-v4.0-fast",
        "jina-reranker-v2-base-multilingual",
        "rerank-2.5",
    ):
        assert CARDS.by_name[name].task == "rerank"
    assert CARDS.by_name["cross-encoder/ms-marco-MiniLM-L-6-v2"].id == "ms-marco-MiniLM-L6-v2"


def test_a_card_of_a_reranker_says_so_before_it_is_loaded() -> None:
    for card in CARDS.by_id.values():
        named = re.search("rerank|marco|colbert|lateon", card.id.lower())
        assert (card.task == "rerank") == bool(named)
        assert card.task is None or not card.dimensions


def test_only_the_model_that_is_installed_is_loaded_at_start() -> None:
    assert [card.id for card in CARDS.by_id.values() if card.preload] == ["all-MiniLM-L6-v2"]


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("all-minilm:22m", "all-MiniLM-L6-v2"),
        ("all-minilm:l12-v2", "all-MiniLM-L12-v2"),
        ("nomic-embed-text:v1.5", "nomic-embed-text-v1.5"),
        ("mxbai-embed-large:335m", "mxbai-embed-large-v1"),
        ("BGE-M3:567M", "bge-m3"),
        ("qwen3-embedding:8b", "Qwen3-Embedding-8B"),
    ],
)
def test_tags_of_ollamas_library_are_known_where_they_name_the_same_model(
    name: str, card: str
) -> None:
    found = split_name(name, CARDS, lambda card: card.prompts or {})
    assert found == (CARDS.by_id[card], None)
