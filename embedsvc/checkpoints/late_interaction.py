"""What the files of a late-interaction model (ColBERT) say of its texts, and of its modules.

Such a model gives a vector for each token. Three programs write them: sentence-transformers'
MultiVectorEncoder lists its modules; PyLate lists the backbone and the projection, and states the
rest in config_sentence_transformers.json; Stanford's ColBERT states it in artifact.metadata and has
the projection among the weights. All are read as sentence-transformers 6 reads them.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from embedsvc.bounds import PROMPT_CHARACTERS, SKIPPED_WORDS, VECTOR
from embedsvc.catalog.cards import Card, Prompts
from embedsvc.checkpoints import prompts
from embedsvc.checkpoints.files import Files, as_array, as_object
from embedsvc.checkpoints.modules import (
    Modules,
    module_folder,
    module_kind,
    read_dense,
    read_module,
)
from embedsvc.checkpoints.steps import Dense, Normalize, Step
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.checkpoints.token_limit import positions_of
from embedsvc.checkpoints.transformer_settings import read_settings

CLASS = "HF_ColBERT"
"""The class of transformers by which Stanford's ColBERT goes."""
PROJECTION = "linear.weight"
"""Its tensor that projects the hidden state of each token."""
METADATA = "artifact.metadata"
QUERY_LENGTH = 32
"""Tokens of an expanded query where nothing states it."""
PYLATE = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens",
          "attend_to_mask_tokens", "skiplist_words", "query_length", "document_length")  # fmt: skip
"""Keys of config_sentence_transformers.json that PyLate writes."""
MASK = "MultiVectorMask"
OF_TOKENS = "token_embeddings"
"""What vectors of tokens are called between sentence-transformers' modules."""
ENCODERS = ("albert", "bert", "camembert", "distilbert", "electra", "gte", "modernbert", "mpnet",
            "new", "nomic_bert", "roberta", "xlm-roberta")  # fmt: skip
"""Values of `model_type` whose passes can have tokens that are not attended to."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """Tokens that are put behind a query and have vectors as its own have."""

    length: int
    """How many tokens the query has with them."""
    attended: bool
    """Whether other tokens attend to them."""
    tokens: tuple[str, ...]
    """The first of these that the vocabulary has."""
    fixed: bool
    """Whether a query may not be longer."""


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """How the tokens of queries and documents get vectors, and how these give a score."""

    query_tokens: int
    """The most tokens of a query, special tokens and prompt included."""
    document_tokens: int
    """The same of a document."""
    expansion: Expansion | None
    markers: tuple[str, ...]
    """Prompts that are one token, where the vocabulary has it."""
    skipped: tuple[str, ...]
    """Tokens that have no vectors."""
    skipped_in: tuple[str, ...]
    """In which texts they have none: `document`, `query`."""
    mean: bool
    """Whether a score is the mean over the tokens of the query, not the sum."""


def read_token_modules(root: Files) -> Modules | None:
    """The modules of a late-interaction model, which work on the vector of each token.

    None where the folder is of another. Raises `CheckpointError` that names a module which is not
    supported.
    """
    listed = root.read_as("modules.json", list[dict[str, Any]])
    if listed is None:
        return _stanford_modules(root) if _is_stanford(root) else None
    late = root.read(prompts.FILE).get("model_type") in ("MultiVectorEncoder", "ColBERT")
    if not late and not any(str(module.get("type")).endswith(f".{MASK}") for module in listed):
        return None
    kinds = [module_kind(root, module, MASK) for module in listed]
    if kinds[:1] != ["Transformer"]:
        raise root.error("modules.json", "the first module must be a Transformer")
    steps: list[Step] = []
    for kind, module in zip(kinds[1:], listed[1:], strict=True):
        inside = root.inside(module_folder(root, module))
        if kind == "Dense":
            steps.append(read_dense(inside, OF_TOKENS))
        elif kind == "Normalize":
            read_module(inside, OF_TOKENS)
            steps.append(Normalize())
        elif kind not in (MASK, "Dropout"):
            raise root.error("modules.json", f"module `{kind}` is not supported in a model that "
                             "gives vectors of tokens")  # fmt: skip
    if MASK not in kinds:  # PyLate's normalises all the same
        steps.append(Normalize())
    folder = root.inside(module_folder(root, listed[0])).folder
    return Modules(folder, False, (), include_prompt=True, steps=tuple(steps), of_tokens=True)


def read_late_interaction(
    root: Files, files: Files, card: Card, config: dict[str, Any], limit: int
) -> tuple[LateInteraction, Prompts]:
    """What the files of a late-interaction model say of its texts, and its prompts.

    `files` are those of its first module, `config` is their config.json, and `limit` the most
    tokens of a text that says nothing of itself. Raises `CheckpointError` that names the file and
    the key.
    """
    _, settings = read_settings(files)
    own = root.read(prompts.FILE)
    known = {name: text for name, text in (as_object(own.get("prompts")) or {}).items() if text}
    if _is_stanford(root):
        name, stated, markers = METADATA, *_of_stanford(root)
        known = markers | known
    else:
        name, markers = prompts.FILE, {}
        stated = {key: own[key] for key in PYLATE if own.get(key) is not None}
        for role in ("query", "document"):
            if marker := _text(root, name, stated.get(f"{role}_prefix", "")):
                markers[role] = marker
                known[role] = marker + known.get(role, "").removeprefix(marker)
        mask = _mask(root)
        words = string.punctuation if own.get("model_type") == "ColBERT" else ""
        stated = {"skiplist_words": list(words)} | stated | mask
        if any(key in own for key in PYLATE) and own.get("do_query_expansion") is not False:
            # PyLate expands to `query_length`, and sentence-transformers to the expansion's own.
            attends = own.get("attend_to_expansion_tokens", own.get("attend_to_mask_tokens"))
            length = stated.pop("query_length", None) or QUERY_LENGTH
            expansion = {"strategy": "fixed", "attend": bool(attends), "length": length}
            stated["query_expansion"] = own.get("query_expansion", expansion)
        stated |= settings.by_role
    expansion = _expansion(root, name, stated.get("query_expansion"), files)
    _check_expansion(root, config, expansion)
    document = card.max_tokens or _length(root, name, "document_length", stated) or limit
    query = _length(root, name, "query_length", stated) or limit
    if expansion is not None:
        query = expansion.length if expansion.fixed else max(query, expansion.length)
    positions = positions_of(config) or limit
    late = LateInteraction(
        query_tokens=min(query, positions),
        document_tokens=document if card.max_tokens else min(document, positions),
        expansion=expansion,
        markers=tuple(dict.fromkeys(markers.values())),
        skipped=_words(root, name, "skiplist_words", stated),
        skipped_in=_words(root, name, "skiplist_tasks", stated) or ("document",),
        mean=own.get("similarity_fn_name") == "meanmaxsim",
    )
    return late, known


def _is_stanford(root: Files) -> bool:
    classes = as_array(root.read("config.json").get("architectures")) or ()
    return CLASS in classes and not root.has("modules.json")


def _stanford_modules(root: Files) -> Modules:
    """The projection that lies among the weights, and the normalisation."""
    tensors = Tensors(root.model, root.folder)
    shape = tensors.shape(PROJECTION)
    if len(shape) != 2 or not all(1 <= size <= VECTOR for size in shape):
        raise tensors.error(f"tensor `{PROJECTION}` has shape {shape}, and must be a matrix")
    outputs, inputs = shape
    linear = Dense(root.folder, inputs, outputs, False, "Identity", False, own_folder=False)
    steps = (linear, Normalize())
    return Modules(root.folder, False, (), include_prompt=True, steps=steps, of_tokens=True)


def _of_stanford(root: Files) -> tuple[dict[str, Any], Prompts]:
    """artifact.metadata, in the words of the other layouts, and its markers."""
    about = root.read(METADATA)
    expansion = {
        "strategy": "fixed",
        "attend": bool(about.get("attend_to_mask_tokens")),
        "length": about.get("query_maxlen") or QUERY_LENGTH,
    }
    skips = about.get("mask_punctuation", True)
    stated = {
        "query_expansion": expansion,
        "document_length": about.get("doc_maxlen"),
        "skiplist_words": list(string.punctuation) if skips else [],
    }
    query, document = about.get("query_token_id"), about.get("doc_token_id")
    markers = {"query": query or "[unused0]", "document": document or "[unused1]"}
    return stated, {role: _text(root, METADATA, text) + " " for role, text in markers.items()}


def _mask(root: Files) -> dict[str, Any]:
    """What the module says that leaves tokens out; empty where there is none."""
    for module in root.read_as("modules.json", list[dict[str, Any]]) or []:
        if str(module.get("type")).endswith(f".{MASK}"):
            inside = root.inside(module_folder(root, module))
            stated = inside.read("config.json")
            if stated.get("keep_only_token_ids"):
                raise inside.error("config.json", "`keep_only_token_ids` is not supported")
            tasks = stated.get("skiplist_tasks")
            return stated | {"skiplist_tasks": [tasks] if isinstance(tasks, str) else tasks}
    return {}


def _expansion(root: Files, name: str, stated: Any, files: Files) -> Expansion | None:
    if stated is None:
        return None
    settings = as_object(stated) or {}
    strategy, attended = settings.get("strategy"), settings.get("attend", False)
    length, token = settings.get("length"), settings.get("token")
    if (
        strategy not in ("fixed", "min")
        or not isinstance(attended, bool)
        or type(length) is not int
        or not 1 <= length <= VECTOR
        or not isinstance(token, str | None)
        or settings.keys() - {"strategy", "attend", "length", "token"}
    ):
        raise root.error(name, f"`query_expansion` of {stated!r} is not supported")
    tokens = (token,) if token is not None else tuple(_special_tokens(files))
    return Expansion(length, attended, tokens, strategy == "fixed")


def _special_tokens(files: Files) -> Iterator[str]:
    """The mask tokens that a tokeniser may have, then those that end a text."""
    stated = [files.read(name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    for kind, usual in (("mask_token", ("[MASK]", "<mask>")), ("eos_token", ("</s>",))):
        for about in stated:
            value = about.get(kind)
            content = (as_object(value) or {}).get("content", value)
            if isinstance(content, str):
                yield content
        yield from usual


def _check_expansion(root: Files, config: dict[str, Any], expansion: Expansion | None) -> None:
    """Raise `CheckpointError` if the model's attention cannot leave out an expansion."""
    if expansion is None or expansion.attended:
        return
    if config["model_type"] not in ENCODERS:
        raise root.error(
            "config.json",
            f"queries with tokens that are not attended to are not supported of model_type "
            f"`{config['model_type']}`",
        )
    window = config.get("local_attention")
    if isinstance(window, int) and expansion.length > window // 2:
        raise root.error(
            "config.json",
            f"queries are expanded to {expansion.length} tokens, some of which would see none of "
            f"the query: `local_attention` is {window}",
        )


def _length(root: Files, name: str, key: str, stated: dict[str, Any]) -> int | None:
    length = stated.get(key)
    if length is not None and (type(length) is not int or length < 1):
        raise root.error(name, f"`{key}` must be a number of tokens, not {length!r}")
    return length


def _words(root: Files, name: str, key: str, stated: dict[str, Any]) -> tuple[str, ...]:
    listed = as_array(stated.get(key) or [])
    if listed is None or len(listed) > SKIPPED_WORDS or not all(isinstance(w, str) for w in listed):
        raise root.error(name, f"`{key}` must be a list of {SKIPPED_WORDS} tokens at most")
    return tuple(map(str, listed))


def _text(root: Files, name: str, text: Any) -> str:
    if not isinstance(text, str) or len(text) > PROMPT_CHARACTERS:
        raise root.error(name, "has a prefix that is no text, or is too long")
    return text
