"""Checks of a late-interaction model: whether tokens get the vectors that they should."""

import importlib.util
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.quantization import read_quantization
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.diagnosis.verify import AKIN, EXACT, SAME, Check, least_cosine
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.texts.inputs import InputOptions
from embedsvc.texts.item import Item
from embedsvc.texts.roles import Role, open_roles
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import open_tokenizer
from embedsvc.texts.truncation import Rule
from embedsvc.wording.plain import first_line

Vectors = NDArray[np.float32]
ROLES: tuple[Role, ...] = ("query", "document")


def verify_tokens(
    ops: Ops, checkpoint: Checkpoint, original: Checkpoint | None = None
) -> Iterator[Check]:
    """The checks, each as soon as it is done; see `verify.verify`."""
    try:
        encoder = load_encoder(ops, checkpoint)
        items = _items(checkpoint, encoder.rows)
        about = f"{checkpoint.model_type}, {encoder.dimensions} dimensions for each token"
        yield Check("loads", True, f"{about}, {ops.name} {ops.dtype}")
        alone = np.concatenate([_vectors(encoder, [item]) for item in items])
        together = _vectors(encoder, items)
    except EmbeddingFailed as error:
        yield Check("finite", False, str(error))
        return
    yield Check("finite", True, f"{len(alone)} vectors of {len(items)} queries and documents")
    yield _near("alone = in a batch", together, alone, least_cosine(ops, SAME))
    if quantized := read_quantization(checkpoint.config).in_words():
        if original is None:
            told = f"{quantized}; --original MODEL tells what that costs"
            yield Check("quantised", None, told)
            return
        del encoder  # the original takes its place in memory
        ops.release()
        yield _near("quantised", alone, token_vectors_of(ops, original), AKIN)
    else:
        yield _against_reference(checkpoint, alone, least_cosine(ops, EXACT))


def token_vectors_of(ops: Ops, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """The vectors (n, d) of all tokens of the sample texts, as queries and as documents.

    Raises `CheckpointError`.
    """
    encoder = load_encoder(ops, checkpoint)
    return _vectors(encoder, _items(checkpoint, encoder.rows)).astype(np.float64)


def _items(checkpoint: Checkpoint, rows: int | None) -> list[Item]:
    roles = open_roles(checkpoint, open_tokenizer(checkpoint, rows))
    items: list[Item] = []
    for role in ROLES:
        options = InputOptions(checkpoint.prompts.get(role, ""), Rule("end"))
        items += run_to_end(roles.tokenize(TEXTS, options, role)).items
    return items


def _vectors(encoder: Encoder, items: list[Item]) -> Vectors:
    return np.concatenate(HEADS["tokens"].unpack(encoder.run(items, "tokens"), items))


def _near(name: str, vectors: Vectors, reference: NDArray[Any], bound: float) -> Check:
    """How near vectors of tokens come to those of a reference."""
    if vectors.shape != reference.shape:
        return Check(name, False, f"there are {reference.shape}, and here {vectors.shape}")
    cosines = np.einsum("nd,nd->n", vectors.astype(np.float64), reference)
    cosines /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    found = f"cosine {cosines.min():.7f} at least, {cosines.mean():.7f} on average"
    return Check(name, float(cosines.min()) >= bound, found)


def _against_reference(checkpoint: Checkpoint, vectors: Vectors, bound: float) -> Check:
    """Compare with sentence-transformers if it is installed."""
    name = "equals sentence-transformers"
    if importlib.util.find_spec("sentence_transformers") is None:
        return Check(name, None, "it is not installed")
    try:
        library: Any = import_module("sentence_transformers")
        model = library.MultiVectorEncoder(
            str(checkpoint.root), device="cpu", local_files_only=True
        ).float()
        encode = {"query": model.encode_query, "document": model.encode_document}
        found = [encode[role](text).numpy() for role in ROLES for text in TEXTS]
    except Exception as error:  # noqa: BLE001 - whatever another library raises on a checkpoint
        return Check(name, None, f"it cannot load the model: {first_line(error)}")
    return _near(name, vectors, np.concatenate(found), bound)
