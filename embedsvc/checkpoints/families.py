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

from embedsvc.bounds import MODEL_NAME, README
from embedsvc.catalog.cards import Card, Pooling
from embedsvc.catalog.names import SERVERS
from embedsvc.checkpoints.files import Files, as_object
from embedsvc.checkpoints.modules import Modules, read_pooling

FROM_CARD = "its card"
FROM_MODULES = "its pooling module"
FROM_CONFIG = "`pooling_config` in config.json"


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


_VLLM = "vllm-project/vllm tests/models/language/pooling_mteb_test/"
_FASTEMBED = "qdrant/fastembed fastembed/text/"
FAMILIES = (
    Family(
        "Qwen",
        "last_token",
        ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B"),
        _VLLM + "test_gte.py",
    ),
    Family(
        "BAAI",
        "cls",
        (
            "bge-m3",
            *(f"bge-{size}-{lang}" for size in ("small", "base", "large") for lang in ("en", "zh")),
            *(
                f"bge-{size}-{lang}-v1.5"
                for size in ("small", "base", "large")
                for lang in ("en", "zh")
            ),
        ),
        _VLLM + "test_baai.py",
    ),
    Family(
        "intfloat",
        "mean",
        (
            "e5-small",
            "e5-small-v2",
            "e5-base-v2",
            "e5-large-v2",
            "multilingual-e5-small",
            "multilingual-e5-base",
            "multilingual-e5-large",
        ),
        _VLLM + "test_intfloat.py",
    ),
    Family(
        "sentence-transformers",
        "mean",
        ("all-MiniLM-L6-v2",),
        _FASTEMBED + "pooled_normalized_embedding.py",
    ),
    Family(
        "sentence-transformers",
        "mean",
        ("paraphrase-multilingual-MiniLM-L12-v2", "paraphrase-multilingual-mpnet-base-v2"),
        _FASTEMBED + "pooled_embedding.py",
    ),
    Family("thenlper", "mean", ("gte-small", "gte-base", "gte-large"), _VLLM + "test_gte.py"),
    Family(
        "Alibaba-NLP",
        "cls",
        ("gte-modernbert-base", "gte-multilingual-base"),
        _VLLM + "test_gte.py",
    ),
    Family(
        "nomic-ai",
        "mean",
        ("nomic-embed-text-v1", "nomic-embed-text-v1.5", "nomic-embed-text-v2-moe"),
        _VLLM + "test_nomic.py",
    ),
    Family(
        "Snowflake",
        "cls",
        (
            "snowflake-arctic-embed-xs",
            "snowflake-arctic-embed-s",
            "snowflake-arctic-embed-m",
            "snowflake-arctic-embed-m-long",
            "snowflake-arctic-embed-m-v1.5",
            "snowflake-arctic-embed-m-v2.0",
            "snowflake-arctic-embed-l",
            "snowflake-arctic-embed-l-v2.0",
        ),
        _VLLM + "test_snowflake_arctic_embed.py",
    ),
    Family("mixedbread-ai", "cls", ("mxbai-embed-large-v1",), _FASTEMBED + "onnx_embedding.py"),
    Family("google", "mean", ("embeddinggemma-300m",), _VLLM + "test_st_projector.py", dense=2),
    Family(
        "jinaai",
        "mean",
        (
            "jina-embeddings-v2-small-en",
            "jina-embeddings-v2-base-en",
            "jina-embeddings-v2-base-de",
            "jina-embeddings-v2-base-es",
            "jina-embeddings-v2-base-zh",
            "jina-embeddings-v2-base-code",
        ),
        _FASTEMBED + "pooled_normalized_embedding.py",
    ),
    Family(
        "ibm-granite",
        "cls",
        ("granite-embedding-30m-english",),
        "model card of ibm-granite/granite-embedding-30m-english",
    ),
    Family("WhereIsAI", "cls", ("UAE-Large-V1",), "SeanLee97/AnglE README.md"),
)
_BY_MODEL = {model.lower(): family for family in FAMILIES for model in family.models}

PRECISION = re.compile(
    r"(?:-(?:mlx|fp16|f16|bf16|fp32|f32|[2-8]-?bit|q[2-8]|mxfp[48]|nvfp4|dwq|gs\d{2,3}))+$"
)
"""What converters add to a model's name, in lower case: the format and the precision."""
CONVERTED = re.compile(r"converted to MLX format from\s+\[([^\]\s]{1,200})\]")
"""What converters write into README.md. They keep the original's `base_model`, which is what the
original was trained from."""
KEY = re.compile(r"(\w+):[ \t]*(.*)")


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
    family = _BY_MODEL.get(model) or _BY_MODEL.get(_plain(model))
    if family is None or organisation not in (family.organisation.lower(), *SERVERS):
        return None
    return family


def _known(card: Card, root: Files, config: dict[str, Any]) -> Found | None:
    """What is known of the model by its repository's name, else by the one that it comes from."""
    own = card.repo or _cached_repo(root.folder) or root.folder.name
    names = [(own, "")]
    origin = _origin(root, own)
    if origin is not None:
        names.append((origin, ", which README.md names"))
    elif _alike(own, path := str(config.get("_name_or_path"))):
        names.append((path, ", which config.json names"))
    for name, where in names:
        family = find_family(name)
        if family is not None:
            source = f"what is known of {name}{where} ({family.source})"
            return Found((family.pooling,), source, dense=family.dense)
    return None


def _cached_repo(folder: Path) -> str | None:
    """The repository that a folder in the hub's cache belongs to.

    >>> _cached_repo(Path("/hub/models--BAAI--bge-m3/snapshots/0"))
    'BAAI/bge-m3'
    """
    cached = next((part for part in folder.parts if part.startswith("models--")), "")
    return "/".join(cached.split("--")[1:]) or None


def _origin(root: Files, own: str) -> str | None:
    """The model that README.md says this one was converted from.

    What a model was trained from says nothing of how it pools. So `base_model` counts where it is
    said to be the same model in another precision, or bears the same name.
    """
    text = _beginning(root).decode("utf-8", "replace")
    converted = CONVERTED.search(text)
    if converted:
        return converted[1]
    about = _front_matter(text)
    base = about.get("base_model", [])
    relation = about.get("base_model_relation")
    if len(base) != 1 or relation not in (None, ["quantized"]):
        return None
    same = relation or about.get("library_name") == ["mlx"] or _alike(own, base[0])
    return base[0] if same else None


def _beginning(root: Files) -> bytes:
    """Of README.md, what is looked at. It may be of any length, and its end tells nothing."""
    if not root.has("README.md"):
        return b""
    with root.open("README.md") as stream:
        return stream.read(README)


def _front_matter(text: str) -> dict[str, list[str]]:
    """The keys of the YAML that README.md begins with, and their values: one, or a list.

    Only what those keys need is read of YAML; deeper values are passed over.

    >>> _front_matter("---\\nlicense: mit\\nbase_model:\\n- BAAI/bge-m3\\n---\\n# A model")
    {'license': ['mit'], 'base_model': ['BAAI/bge-m3']}
    """
    first, *lines = text.lstrip("\ufeff").splitlines() or [""]
    found: dict[str, list[str]] = {}
    if first.strip() != "---":
        return found
    key = ""
    for line in lines:
        if line.strip() == "---":
            return found
        if match := KEY.fullmatch(line):
            key, value = match.groups()
            values = value.strip("[] \t").split(",") if value.startswith("[") else [value]
            found[key] = [each for each in map(_unquoted, values) if each]
        elif key and line.lstrip().startswith("- "):
            found[key].append(_unquoted(line.lstrip()[2:]))
    return {}


def _unquoted(value: str) -> str:
    return value.strip().strip("\"'")


def _alike(own: str, other: str) -> bool:
    """Whether two repositories or folders have one name, but for the organisation and precision.

    >>> _alike("somebody/bge-m3-mlx-8bit", "BAAI/bge-m3"), _alike("my-bge-m3", "BAAI/bge-m3")
    (True, False)
    """
    one, two = (_plain(name.lower().rpartition("/")[2]) for name in (own, other))
    return one == two


def _plain(model: str) -> str:
    """A model's name, in lower case, without the format and precision.

    A name that is longer than any is left as it is, for a file may have one of megabytes.
    """
    return PRECISION.sub("", model) if len(model) <= MODEL_NAME else model
