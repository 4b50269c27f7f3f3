"""A checkpoint: a folder with weights, and what its other files say of how to use them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.catalog.cards import Card, Pooling, Prompts, Task
from embedsvc.checkpoints import transformer_settings
from embedsvc.checkpoints.adapter import Adapter
from embedsvc.checkpoints.adapter_source import find_adapter
from embedsvc.checkpoints.config_file import read_config
from embedsvc.checkpoints.digests import sha256
from embedsvc.checkpoints.families import Found, find_pooling, is_qwen3_reranker, stated_pooling
from embedsvc.checkpoints.files import Files, as_array
from embedsvc.checkpoints.late_interaction import (
    LateInteraction,
    read_late_interaction,
    read_token_modules,
)
from embedsvc.checkpoints.modules import (
    LogitScore,
    Modules,
    dense_among_weights,
    read_modules,
)
from embedsvc.checkpoints.pair_template import DECODERS, PairTemplate, find_pair_template
from embedsvc.checkpoints.prompts import read_prompts
from embedsvc.checkpoints.quantization import read_quantization
from embedsvc.checkpoints.scoring import Scoring, count_outputs, read_scoring
from embedsvc.checkpoints.sources import check_sha256, digests, find_checkpoint
from embedsvc.checkpoints.sparse import (
    Sparse,
    find_lexical,
    read_sparse_modules,
    sparse_digests,
)
from embedsvc.checkpoints.steps import Dense, LayerNorm, Normalize, Step, Truncate
from embedsvc.checkpoints.tensor_files import WEIGHTS
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.checkpoints.token_limit import max_tokens
from embedsvc.errors import CheckpointError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *transformer_settings.FILES,
)
SETTINGS, PROMPTS = "sentence_bert_config.json", "config_sentence_transformers.json"
"""Files of sentence-transformers that an adapter may have beside it."""
CLASSIFIER = "ForSequenceClassification"
"""How the class names of models end that give scores and no vectors."""
DECODER = "ForCausalLM"
"""How the class names of models end that write texts."""
YES_NO = LogitScore("yes", "no")
"""What sentence-transformers has where a decoder's files say nothing of it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A card with its gaps filled from the checkpoint's files."""

    card: Card
    root: Path
    """The folder with all of its files."""
    folder: Path
    """The folder with weights, config.json and tokeniser: the root, or one in it."""
    model_type: str
    class_name: str
    """The class of transformers that saved it; empty where config.json does not say it."""
    config: dict[str, Any]
    """config.json with the values that it leaves out. An architecture's `Config` is read from
    it."""
    pooling: tuple[Pooling, ...]
    """Several are put side by side in a vector. A classifier, which gives scores, has none, nor has
    a late-interaction model."""
    steps: tuple[Step, ...]
    """The modules that pooled vectors go through, or those of tokens, before `normalize`."""
    normalize: bool
    special_tokens: bool
    """Whether the tokeniser adds special tokens to a text."""
    max_tokens: int
    """The most tokens that a text may have, special tokens included."""
    prompts: Prompts
    default_prompt: str
    """The text that is put before an input where a request asks for no prompt."""
    pooling_source: str
    """What says how to pool, in words; empty for a classifier."""
    scoring: Scoring | None = None
    """What the outputs of a classifier mean; None for a model of vectors."""
    pair_template: PairTemplate | None = None
    """How a decoder is asked about a pair of texts."""
    sparse: Sparse | None = None
    """How it makes sparse vectors; None if it makes none."""
    adapter: Adapter | None = None
    """What is merged into its weights."""
    late: LateInteraction | None = None
    """How the texts of a late-interaction model get vectors for their tokens; None for others."""

    @property
    def labels(self) -> int:
        """How many scores it gives; 0 for a model of vectors."""
        return len(self.scoring.labels) if self.scoring else 0

    @property
    def task(self) -> Task:
        """What the model gives."""
        if self.sparse is not None and not self.pooling:
            return "sparse"
        if self.late is not None and not self.pooling:
            return "rerank"
        if self.scoring is None:
            return "embed"
        return "rerank" if self.labels == 1 else "classify"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All that it gives."""
        more: tuple[Task, ...] = ("sparse",) if self.sparse and self.pooling else ()
        return (self.task, *more)

    def is_bfloat16(self) -> bool:
        """Whether it was trained in bfloat16, by config.json, or is stored in it.

        Numbers in such a model may be larger than any in float16. Raises `CheckpointError`.
        """
        stated = [self.config.get(key) for key in ("dtype", "torch_dtype")]
        stored = (entry.dtype for entry in self.tensors().entries().values())
        return "bfloat16" in stated or "BF16" in stored

    def fingerprint(self, *how: str) -> str:
        """A digest, in hexadecimal, of all that a vector depends on: files, card, and `how` it is
        computed, such as the dtype."""
        parts = [*digests(self.card.id, self.folder), *how]
        parts += [sha256(f) for name in TOKENIZER_FILES if (f := self.folder / name).is_file()]
        for step in self.steps:
            parts.append(type(step).__name__)
            if isinstance(step, Dense | LayerNorm):
                parts += digests(self.card.id, step.folder)
            elif isinstance(step, Truncate):
                parts.append(str(step.size))
        parts.append(repr((self.pooling, self.normalize, sorted(self.prompts.items()))))
        if self.pair_template is not None:
            parts.append(repr((self.pair_template, self.scoring)))
        if self.sparse is not None:
            parts += sparse_digests(self.sparse, self.card.id, self.folder)
        if self.adapter is not None:
            parts += map(sha256, self.adapter.files)
        if self.late is not None:
            parts.append(repr(self.late))
        if self.card.plain_tokens:
            parts.append(repr(self.card.plain_tokens))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def tensors(self, on_read: Callable[[int], None] | None = None) -> Tensors:
        """The weights, to be taken one by one; `on_read` is called with the bytes of each."""
        packed, adapter = read_quantization(self.config), self.adapter
        return Tensors(self.card.id, self.folder, on_read, packed, adapter=adapter)

    def error(self, message: str) -> CheckpointError:
        """The error to raise about its files."""
        return CheckpointError(f"model `{self.card.id}`: {self.folder}: {message}")


def open_checkpoint(card: Card) -> Checkpoint:
    """Find the card's files and read all but the weights.

    The pooling is the card's, else the one that the files state, else what is known of the model,
    see `families`. `normalize` is the card's, else what `modules.json` states, and true where there
    is none. The limit of tokens is the card's, else that of sentence_bert_config.json, else the
    tokeniser's, and never more than the model has positions.

    Raises `CheckpointError` that names the model and the file, also if nothing states the pooling.
    """
    root = Files(card.id, find_checkpoint(card))
    if card.sha256 is not None:
        check_sha256(card, root.folder / WEIGHTS, card.sha256)
    adapter, base = find_adapter(card, root.folder)
    by_tokens = read_sparse_modules(root, card)
    modules = by_tokens[0] if by_tokens else read_token_modules(root) or read_modules(root)
    modules = modules or _other_modules(base or root)
    model = modules if base is None else _other_modules(base)
    files = Files(card.id, model.folder)
    config = read_config(files, static=modules.static)
    class_name = next(iter(map(str, as_array(config.get("architectures")) or ())), "")
    logit_score, reranker = modules.logit_score, False
    if config["model_type"] in DECODERS and not modules.pooling and logit_score is None:
        decoder = class_name.endswith(DECODER)
        reranker = card.task == "rerank" or is_qwen3_reranker(card, root, config, origin=decoder)
        logit_score = YES_NO if decoder and reranker else None
    per_token = bool(by_tokens) or modules.of_tokens
    if class_name.endswith(CLASSIFIER) or logit_score is not None or per_token:
        found = stated_pooling(card, modules)
    else:
        found = find_pooling(card, root, config, modules)
        _check_pooling(card, root, modules, found)
    if not found.include_prompt:
        raise root.error("modules.json", "a pooling without the prompt (`include_prompt` = false)"
                         " is not supported")  # fmt: skip
    stated = read_prompts(root if base is None or root.has(PROMPTS) else base, card)
    cut = (Truncate(stated.truncate_dim),) if stated.truncate_dim else ()
    steps, normalize = _steps(card, (*modules.steps, *cut))
    outputs = 1 if logit_score else modules.labels
    scores = (outputs is not None or not found.pooling) and not per_token
    if scores and outputs is None:
        outputs = count_outputs(Tensors(card.id, files.folder, adapter=adapter), config)
    limits = root if base and root.has(SETTINGS) else files
    limit, late = max_tokens(limits, card, config, static=modules.static), None
    prompts = stated.prompts
    if modules.of_tokens:
        late, prompts = read_late_interaction(root, limits, card, config, limit)
        limit = max(late.query_tokens, late.document_tokens)
    else:
        transformer_settings.refuse_roles(limits)
    checkpoint = Checkpoint(
        card=card,
        root=root.folder,
        folder=files.folder,
        adapter=adapter,
        model_type=str(config["model_type"]),
        class_name=class_name,
        config=config,
        pooling=found.pooling,
        steps=steps,
        normalize=normalize,
        special_tokens=not modules.static,
        max_tokens=limit,
        prompts=prompts if card.prompts is None else card.prompts,
        default_prompt=stated.default,
        pooling_source=found.source,
        scoring=read_scoring(root, config, outputs, logit_score) if scores else None,
        pair_template=find_pair_template(
            files, config["model_type"], needed=logit_score is not None, is_qwen3=reranker
        )
        if scores
        else None,
        sparse=by_tokens[1] if by_tokens else find_lexical(root) if not scores else None,
        late=late,
    )
    if card.task not in (None, checkpoint.task):
        raise root.error("config.json", f"is of a model that can {checkpoint.task}; its card has "
                         f'`task = "{card.task}"`')  # fmt: skip
    return checkpoint


def _other_modules(files: Files) -> Modules:
    """The modules of a folder that may have no `modules.json`, being of transformers, of model2vec,
    or the base of an adapter."""
    if (listed := read_modules(files)) is not None:
        return listed
    static = files.read("config.json").get("model_type") == "model2vec"
    pooling: tuple[Pooling, ...] = ("mean",) if static else ()
    steps = (*dense_among_weights(files), Normalize())
    return Modules(files.folder, static, pooling, include_prompt=True, steps=steps)


def _check_pooling(card: Card, root: Files, modules: Modules, found: Found) -> None:
    """Raise `CheckpointError` unless it is known how to pool, and what that needs is there."""
    if not found.pooling:
        place = f'repo = "{card.repo}"' if card.repo else f'path = "{root.folder}"'
        raise CheckpointError(
            f"model `{card.id}`: neither its card nor {root.folder} says how to pool; give the "
            f"card a `pooling`, as the original model has it. Two lines load it: {place} and "
            'pooling = "mean" (or "cls" or "last_token")'
        )
    if sum(isinstance(step, Dense) for step in modules.steps) < found.dense:
        raise CheckpointError(
            f"model `{card.id}`: {root.folder}: the {found.dense} Dense layers are missing that "
            f"follow its pooling, by {found.source}"
        )


def _steps(card: Card, steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], bool]:
    """The modules after pooling, and whether vectors are normalised at the very end."""
    normalize = isinstance(steps[-1], Normalize) if steps else False
    if normalize:
        steps = steps[:-1]
    return steps, normalize if card.normalize is None else card.normalize
