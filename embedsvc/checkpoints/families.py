"""How a checkpoint pools: what its card says, else its files, else what is known of the model.

Converters to MLX left out the folder `1_Pooling/` for years, so many conversions do not say how
they pool. `FAMILIES` knows it of widespread models. A model is known by its name alone: by the name
of its repository, or of the one that it was converted from, if its files say so. The architecture
tells nothing, since models of one architecture pool in different ways.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from embedsvc.catalog.cards import Card, Pooling
from embedsvc.catalog.names import SERVERS
from embedsvc.checkpoints.files import Files, as_object
from embedsvc.checkpoints.modules import Modules
from embedsvc.checkpoints.origins import alike, converted_from, plain
from embedsvc.checkpoints.pooling import read_pooling

FROM_CARD = "its card"
FROM_MODULES = "its pooling module"
FROM_CONFIG = "`pooling_config` in config.json"
QWEN3_RERANKER = re.compile(r"qwen3-reranker-(0\.6|4|8)b\b")


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one maker that pool alike."""

    organisation: str
    pooling: Pooling
    models: tuple[str, ...]
    """Names of repositories, without the organisation."""
    source: str
    """Where it is said that they pool so: a file of a public repository, an issue, or a model
    card."""
    dense: int = 0
    """How many Dense layers follow the pooling. Without them, vectors would be others."""


_FLAG_EMBEDDING = "FlagOpen/FlagEmbedding FlagEmbedding/inference/embedder/model_mapping.py"
_FASTEMBED = "Anush008/fastembed-rs src/text_embedding/impl.rs"
_VLLM = "vllm-project/vllm tests/models/language/pooling_mteb_test/"
_GRANITE = "ibm-granite/granite-embedding-models "
_SIZES = ("small", "base", "large")
_BGE = [f"bge-{size}-{language}" for size in _SIZES for language in ("en", "zh")]
FAMILIES = (
    Family(
        "Qwen",
        "last_token",
        ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B"),
        "QwenLM/Qwen3-Embedding README.md",
    ),
    Family("BAAI", "cls", ("bge-m3", *_BGE, *(f"{name}-v1.5" for name in _BGE)), _FLAG_EMBEDDING),
    Family(
        "intfloat",
        "mean",
        (
            *(f"e5-{size}{end}" for size in _SIZES for end in ("", "-v2", "-unsupervised")),
            *(f"multilingual-e5-{size}" for size in _SIZES),
            "multilingual-e5-large-instruct",
        ),
        "microsoft/unilm e5/model_config.py",
    ),
    Family(
        "sentence-transformers",
        "mean",
        (
            "all-MiniLM-L6-v2",
            "all-MiniLM-L12-v2",
            "all-mpnet-base-v2",
            "paraphrase-multilingual-MiniLM-L12-v2",
            "paraphrase-multilingual-mpnet-base-v2",
        ),
        _FASTEMBED,
    ),
    Family("thenlper", "mean", tuple(f"gte-{size}" for size in _SIZES), _FLAG_EMBEDDING),
    Family("thenlper", "cls", tuple(f"gte-{size}-zh" for size in _SIZES), _FLAG_EMBEDDING),
    Family(
        "Alibaba-NLP",
        "cls",
        ("gte-multilingual-base", "gte-base-en-v1.5", "gte-large-en-v1.5"),
        _FLAG_EMBEDDING,
    ),
    Family("Alibaba-NLP", "cls", ("gte-modernbert-base",), _VLLM + "test_gte.py"),
    Family("nomic-ai", "mean", ("nomic-embed-text-v1", "nomic-embed-text-v1.5"), _FASTEMBED),
    Family("nomic-ai", "mean", ("nomic-embed-text-v2-moe",), _VLLM + "test_nomic.py"),
    Family(
        "nomic-ai",
        "mean",
        ("modernbert-embed-base", "nomicai-modernbert-embed-base"),  # as mlx-community names it
        "model card of nomic-ai/modernbert-embed-base",
    ),
    Family("lightonai", "mean", ("modernbert-embed-large",), _FASTEMBED),
    Family(
        "Snowflake",
        "cls",
        tuple(f"snowflake-arctic-embed-{size}" for size in ("xs", "s", "m", "m-long", "l")),
        _FASTEMBED,
    ),
    Family(
        "Snowflake",
        "cls",
        tuple(f"snowflake-arctic-embed-{size}" for size in ("m-v1.5", "m-v2.0", "l-v2.0")),
        _VLLM + "test_snowflake_arctic_embed.py",
    ),
    Family("mixedbread-ai", "cls", ("mxbai-embed-large-v1",), _FASTEMBED),
    Family(
        "google",
        "mean",
        ("embeddinggemma-300m",),
        "pull request 592 of qdrant/fastembed",
        dense=2,
    ),
    Family(
        "google",
        "mean",
        ("embeddinggemma-300m-qat-q8_0-unquantized",),
        "corbet-labs/cfetch experiments/embedding-v1/quantized_artifact.py",
        dense=2,
    ),
    Family(
        "jinaai",
        "mean",
        (
            "jina-embeddings-v2-small-en",
            *(f"jina-embeddings-v2-base-{kind}" for kind in ("en", "de", "es", "zh", "code")),
        ),
        "qdrant/fastembed fastembed/text/pooled_normalized_embedding.py",
    ),
    Family("ibm-granite", "cls", ("granite-embedding-30m-english",), _GRANITE + "README_r1.md"),
    Family("ibm-granite", "cls", ("granite-embedding-english-r2",), _GRANITE + "README.md"),
    Family(
        "ibm-granite",
        "cls",
        ("granite-embedding-97m-multilingual-r2", "granite-embedding-311m-multilingual-r2"),
        _GRANITE + "code/multilingual_r2_examples.ipynb",
    ),
    Family("WhereIsAI", "cls", ("UAE-Large-V1",), "SeanLee97/AnglE README.md"),
)
"""Each source names every model of its row. A model that is trained further may pool otherwise, so
it is another one."""
_BY_MODEL = {model.lower(): family for family in FAMILIES for model in family.models}


class Found(NamedTuple):
    """How a checkpoint pools, and what says so."""

    pooling: tuple[Pooling, ...]
    """Empty if nothing says it."""
    source: str
    """What says it, in words."""
    include_prompt: bool = True
    """Whether tokens of the prompt are pooled too."""
    dense: int = 0
    """How many Dense layers have to follow, if that is known."""


def find_pooling(card: Card, root: Files, config: dict[str, Any], modules: Modules) -> Found:
    """How a checkpoint pools.

    Raises `CheckpointError` if its files ask for what is not supported.
    """
    if (stated := stated_pooling(card, modules)).pooling:
        return stated
    if config.get("pooling_config"):
        inside = Files(root.model, modules.folder)
        settings = as_object(config["pooling_config"])
        if not settings or not any(key.startswith("pooling_mode") for key in settings):
            raise inside.error("config.json", "`pooling_config` does not say how to pool")
        pooling, include_prompt = read_pooling(inside, settings)
        return Found(pooling, FROM_CONFIG, include_prompt)
    return _known(card, root, config) or Found((), "")


def stated_pooling(card: Card, modules: Modules) -> Found:
    """How the card says to pool, else the pooling module."""
    if card.pooling:
        pooling = (card.pooling,) if isinstance(card.pooling, str) else card.pooling
        return Found(pooling, FROM_CARD, modules.include_prompt)
    return Found(modules.pooling, FROM_MODULES if modules.pooling else "", modules.include_prompt)


def find_family(name: str) -> Family | None:
    """The family of a repository: its maker's own, or one of those who convert others' models.

    >>> find_family("mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ").pooling
    'last_token'
    >>> [find_family(name) for name in ("acme/bge-m3", "BAAI/bge-m3-retromae", "bge-m3")]
    [None, None, None]
    """
    organisation, _, model = name.lower().partition("/")
    family = _BY_MODEL.get(model) or _BY_MODEL.get(plain(model))
    if family is None or organisation not in (family.organisation.lower(), *SERVERS):
        return None
    return family


def _known(card: Card, root: Files, config: dict[str, Any]) -> Found | None:
    """What is known of the model by its repository's name, else by the one that it comes from."""
    for name, where in _names(card, root, config):
        family = find_family(name)
        if family is not None:
            source = f"what is known of {name}{where} ({family.source})"
            return Found((family.pooling,), source, dense=family.dense)
    return None


def is_qwen3_reranker(card: Card, root: Files, config: dict[str, Any], *, origin: bool) -> bool:
    """Whether a checkpoint is known as one of the Qwen3 rerankers: by its own name or, with
    `origin`, by that of what it was converted from.

    Their class is that of any Qwen3 that writes texts, and until April 2026 their files had the
    chat template of one.
    """
    names = _names(card, root, config) if origin else [(_own_name(card, root), "")]
    for name, _ in names:
        organisation, _, model = name.lower().partition("/")
        if organisation in ("qwen", "tomaarsen", *SERVERS) and QWEN3_RERANKER.match(model):
            return True
    return False


def _names(card: Card, root: Files, config: dict[str, Any]) -> list[tuple[str, str]]:
    """The names of a model: its repository's, and that of the one it comes from; and what says
    so."""
    own = _own_name(card, root)
    names = [(own, "")]
    origin = converted_from(root, own)
    if origin is not None:
        names.append((origin, ", which README.md names"))
    elif alike(own, path := str(config.get("_name_or_path"))):
        names.append((path, ", which config.json names"))
    return names


def _own_name(card: Card, root: Files) -> str:
    return card.repo or _cached_repo(root.folder) or root.folder.name


def _cached_repo(folder: Path) -> str | None:
    """The repository that a folder in the hub's cache belongs to.

    >>> _cached_repo(Path("/hub/models--BAAI--bge-m3/snapshots/0"))
    'BAAI/bge-m3'
    """
    cached = next((part for part in folder.parts if part.startswith("models--")), "")
    return "/".join(cached.split("--")[1:]) or None
