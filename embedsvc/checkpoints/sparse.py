"""What a checkpoint says of sparse vectors: a weight for each token of the vocabulary that counts.

sentence-transformers' SparseEncoder has the masked-LM head of a Transformer and a SpladePooling
after it, or a Router that has these for documents and a SparseStaticEmbedding for queries. BGE-M3
has a linear layer beside a model of vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.bounds import MODULES
from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.digests import sha256
from embedsvc.checkpoints.files import Files, as_array, as_object
from embedsvc.checkpoints.modules import Modules, module_folder, module_kind
from embedsvc.checkpoints.sources import digests
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import CheckpointError

MASKED_LM = "ForMaskedLM"
"""How the class names of models end that guess words."""
LEXICAL_FILE = "sparse_linear.pt"
TRANSFORMERS = ("Transformer", "MLMTransformer")
SPLADE, STATIC, ROUTER = "SpladePooling", "SparseStaticEmbedding", "Router"
ROUTES = "router_config.json"
IDF_FILE = "idf.json"
QUERY_FILES = (IDF_FILE, "tokenizer.json")
QUERY, DOCUMENT = "query", "document"


@dataclass(frozen=True, slots=True)
class Sparse:
    """How a checkpoint makes sparse vectors."""

    source: Literal["masked_lm", "linear"]
    """What gives weights: the logits of a masked-LM head, for the whole vocabulary; or a linear
    layer, for each token of the text."""
    pooling: Literal["max", "sum"] = "max"
    """How the weights of the tokens of a text become one."""
    logarithms: int = 1
    """How many times log(1 + x) is taken of a logit that is above 0."""
    queries: Path | None = None
    """The folder with the weights of the tokens of queries, which need no pass."""
    default: Literal["query", "document"] = DOCUMENT
    """What a text is where a request does not say it."""


SparseModules = tuple[Modules, Sparse]


def read_sparse_modules(root: Files, card: Card) -> SparseModules | None:
    """The modules of a model of sparse vectors; None where the folder is of another.

    Raises `CheckpointError` that names a module which is not supported.
    """
    listed = root.read_as("modules.json", list[dict[str, Any]])
    if listed is None:
        classes = as_array(root.read("config.json").get("architectures")) or ()
        masked = any(str(name).endswith(MASKED_LM) for name in classes)
        return _modules(root, Sparse("masked_lm")) if card.task == "sparse" and masked else None
    if len(listed) > MODULES:
        raise root.error("modules.json", f"lists {len(listed)} modules, more than {MODULES}")
    ends = [str(module.get("type")).rpartition(".")[2] for module in listed]
    if ends == [ROUTER] and root.inside(module_folder(root, listed[0])).has(ROUTES):
        return _routed(root.inside(module_folder(root, listed[0])))
    if SPLADE not in ends:
        return None
    kinds = [module_kind(root, module, "MLMTransformer", SPLADE) for module in listed]
    folders = [root.inside(module_folder(root, module)) for module in listed]
    return _splade(root, "modules.json", kinds, folders)


def find_lexical(root: Files) -> Sparse | None:
    """The linear layer that BGE-M3 has for the weights of a text's tokens, if it is there."""
    return Sparse("linear") if root.has(LEXICAL_FILE) else None


def sparse_digests(sparse: Sparse, model: str, folder: Path) -> list[str]:
    """Digests of all that sparse vectors depend on beside the weights of the model."""
    parts = [repr((sparse.source, sparse.pooling, sparse.logarithms, sparse.default))]
    if sparse.source == "linear":
        parts.append(sha256(folder / LEXICAL_FILE))
    if sparse.queries is not None:
        if not (sparse.queries / IDF_FILE).is_file():
            parts += digests(model, sparse.queries)
        parts += [sha256(f) for name in QUERY_FILES if (f := sparse.queries / name).is_file()]
    return parts


def query_weights(
    sparse: Sparse, model: str, token_to_id: Callable[[str], int | None], vocabulary: int
) -> NDArray[np.float32]:
    """The weight of each token in a query, by id: a tensor, or the values of idf.json by token.

    Raises `CheckpointError`.
    """
    assert sparse.queries is not None  # noqa: S101 - there are such weights
    files = Files(model, sparse.queries)
    stated = files.read_as(IDF_FILE, dict[str, float])
    if stated is None:
        tensors = Tensors(model, sparse.queries)
        weights = tensors.take("weight", *tensors.shape("weight")[:1])
        tensors.refuse_left_over(())
    else:
        weights = np.zeros(vocabulary, np.float32)
        for token, weight in stated.items():
            place = token_to_id(token)
            if place is not None and place < vocabulary:
                weights[place] = weight
    if not np.isfinite(weights).all():
        raise CheckpointError(
            f"model `{model}`: {sparse.queries}: weights of queries are not finite"
        )
    return weights


def _splade(root: Files, name: str, kinds: list[str], folders: list[Files]) -> SparseModules:
    """A Transformer and a SpladePooling. Raises `CheckpointError` if there is anything else."""
    if len(kinds) != 2 or kinds[0] not in TRANSFORMERS or kinds[1] != SPLADE:
        raise root.error(name, f"modules {' + '.join(kinds)} are not supported: sparse vectors are "
                         f"made by a Transformer and {SPLADE}")  # fmt: skip
    stated = folders[1].read("config.json")
    pooling = stated.get("pooling_strategy", "max")
    if pooling not in ("max", "sum"):
        raise folders[1].error("config.json", f"`pooling_strategy` of {pooling!r} is not supported")
    function = stated.get("activation_function", "relu")
    if function not in ("relu", "log1p_relu"):
        raise folders[1].error(
            "config.json", f"`activation_function` of {function!r} is not supported"
        )
    return _modules(folders[0], Sparse("masked_lm", pooling, 1 if function == "relu" else 2))


def _routed(root: Files) -> SparseModules:
    """The modules of a Router, which has others for queries than for documents."""
    config = root.read(ROUTES)
    types, structure = (as_object(config.get(key)) or {} for key in ("types", "structure"))
    parameters = as_object(config.get("parameters")) or {}
    if parameters.get("route_mappings"):
        raise root.error(ROUTES, "`route_mappings` is not supported")
    routes: dict[str, tuple[list[str], list[Files]]] = {}
    for route in (QUERY, DOCUMENT):
        names = as_array(structure.get(route)) or []
        if not 1 <= len(names) <= MODULES:
            raise root.error(ROUTES, f"has no modules for the route `{route}`")
        modules = [{"type": types.get(str(name)), "path": str(name)} for name in names]
        known = ("MLMTransformer", SPLADE, STATIC)
        kinds = [module_kind(root, module, *known) for module in modules]
        routes[route] = kinds, [root.inside(module_folder(root, module)) for module in modules]
    kinds, folders = routes[QUERY]
    if kinds != [STATIC]:
        raise root.error(ROUTES, f"modules {' + '.join(kinds)} are not supported for queries, "
                         f"only {STATIC}")  # fmt: skip
    modules, sparse = _splade(root, ROUTES, *routes[DOCUMENT])
    default = parameters.get("default_route") or next(iter(structure))
    if default not in (QUERY, DOCUMENT):
        raise root.error(ROUTES, f"`default_route` of {default!r} is not supported")
    return modules, replace(sparse, queries=folders[0].folder, default=default)


def _modules(first: Files, sparse: Sparse) -> SparseModules:
    return Modules(first.folder, False, (), include_prompt=True, steps=()), sparse
