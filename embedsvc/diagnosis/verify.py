"""Checks of a model: whether it computes what it should, on this machine."""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.digests import sha256
from embedsvc.checkpoints.families import FROM_MODULES
from embedsvc.checkpoints.quantization import read_quantization
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.checkpoints.tensor_files import weight_files
from embedsvc.errors import CheckpointError, EmbeddingFailed
from embedsvc.inference.encoder import Encoder, load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.hardware import Hardware
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.item import TokenIds
from embedsvc.texts.tokenizer import open_tokenizer
from embedsvc.wording.plain import first_line

CANONICAL = Path(__file__).parents[1] / "data" / "canonical.json"
FULL_LENGTH = 512
"""A long text is tried too, of so many tokens, or of as many as the model takes."""
EXACT, CLOSE, ROUGH = 0.99999, 0.998, 0.98
"""The least cosines with the reference: in float32, in 16 bits, and in int8."""
AKIN = 0.5
"""The least cosine of a quantised model with the original. Below, it is another one, or lost."""
SAME = 1 - 1e-6
"""The least cosine in float32 between a text alone and in a batch."""
VIRTUAL_ERROR = 1e-4
"""How far float32 may be off on the GPU of a virtual Mac, which adds up in an order of its own."""
NEAREST = 5
"""How many nearest neighbours of each text are compared with the reference's."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, and what was found."""

    name: str
    passed: bool | None
    """None: it could not be checked."""
    found: str


class Canonical(msgspec.Struct, frozen=True):
    """Vectors of `TEXTS` that sentence-transformers made with the weights of this digest."""

    sha256: str
    by: str
    vectors: list[list[float]]


def verify(ops: Ops, checkpoint: Checkpoint, original: Checkpoint | None = None) -> Iterator[Check]:
    """The checks, each as soon as it is done.

    `original`: what a quantised checkpoint was made from. Raises `CheckpointError` if one of them
    does not load.
    """
    try:
        encoder = load_encoder(ops, checkpoint)
    except EmbeddingFailed as error:
        yield Check("finite", False, str(error))
        return
    ids = _tokens(checkpoint, encoder.rows)
    if checkpoint.pooling_source not in (FROM_MODULES, ""):
        pooled = " + ".join(checkpoint.pooling)
        yield Check("pooling", True, f"{pooled}, by {checkpoint.pooling_source}")
    yield Check(
        "loads",
        True,
        f"{checkpoint.model_type}, {encoder.dimensions} dimensions, {checkpoint.max_tokens} "
        f"tokens, pooling {' + '.join(checkpoint.pooling)}, {ops.name} {ops.dtype}",
    )
    try:
        vectors = np.concatenate([encoder.encode([text]) for text in ids])
    except EmbeddingFailed as error:
        yield Check("finite", False, str(error))
        return
    yield Check("finite", True, f"{len(vectors)} texts of {_range(map(len, ids))} tokens")
    if checkpoint.normalize:
        off = float(np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max())
        yield Check("unit length", off <= 1e-5, f"off by {off:.1e} at most")
    yield _same_in_batches(encoder, ids, vectors, least_cosine(ops, SAME))
    least = least_cosine(ops, EXACT)
    if ops.dtype != "float32" and ops.name == "native":
        exact = load_encoder(NumpyOps(), checkpoint)
        expected = np.concatenate([exact.encode([text]) for text in ids])
        yield _near(f"{ops.dtype} is near float32", vectors, expected, least, "")
    if quantized := read_quantization(checkpoint.config).in_words():
        del encoder  # the original takes its place in memory
        ops.release()
        yield _cost(ops, quantized, vectors[: len(TEXTS)], original)
    else:
        yield from _against_reference(checkpoint, vectors[: len(TEXTS)], least)


def _cost(ops: Ops, quantized: str, vectors: Vectors, original: Checkpoint | None) -> Check:
    """How near the vectors of quantised weights come to those of the original ones."""
    if original is None:
        return Check("quantised", None, f"{quantized}; --original MODEL tells what that costs")
    encoder = load_encoder(ops, original)
    texts = _tokens(original, encoder.rows)[: len(TEXTS)]
    expected = np.concatenate([encoder.encode([text]) for text in texts])
    name = original.card.id
    if expected.shape != vectors.shape:
        other = f"the vectors of `{name}` have {expected.shape[1]} dimensions"
        return Check("quantised", False, f"{quantized}; {other}")
    check = _near("quantised", vectors, expected, AKIN, "")
    return replace(check, found=f"{quantized}; to `{name}`: {check.found}")


def least_cosine(ops: Hardware, exact: float) -> float:
    """The least cosine that vectors computed there may have, where `exact` is that of float32."""
    if ops.dtype != "float32":
        return ROUGH if ops.dtype == "int8" else CLOSE
    return min(exact, 1 - VIRTUAL_ERROR) if is_virtual(ops) else exact


def is_virtual(ops: Hardware) -> bool:
    """Whether it is the GPU that macOS gives its virtual machines, by what it says of itself."""
    return "Paravirtual" in ops.device


def _tokens(checkpoint: Checkpoint, rows: int | None) -> list[TokenIds]:
    """The token ids of `TEXTS` and of a long text, all cut to the model's limit."""
    full = "word " * FULL_LENGTH
    limits = [checkpoint.max_tokens] * len(TEXTS) + [min(FULL_LENGTH, checkpoint.max_tokens)]
    texts = open_tokenizer(checkpoint, rows).encode([*TEXTS, full])
    return [text[:limit] for text, limit in zip(texts, limits, strict=True)]


def _same_in_batches(
    encoder: Encoder, ids: list[TokenIds], vectors: Vectors, bound: float
) -> Check:
    order: list[int] = np.random.default_rng(0).permutation(len(ids)).tolist()
    together = encoder.encode([ids[i] for i in order])
    cosines = _cosines(together, vectors[order])
    apart = float(np.abs(together - vectors[order]).max())
    return Check(
        "alone = in a batch",
        float(cosines.min()) >= bound,
        f"cosine {cosines.min():.7f} at least, components apart by {apart:.1e} at most",
    )


def _against_reference(checkpoint: Checkpoint, vectors: Vectors, bound: float) -> Iterator[Check]:
    """Compare with sentence-transformers if it is installed, else with vectors recorded from it."""
    name = "equals sentence-transformers"
    if checkpoint.adapter is not None:
        yield Check(name, None, "it is not asked about models with an adapter")
        return
    if not _pools_alike(checkpoint):
        yield Check(name, None, "the files do not say how to pool as it does here")
        return
    if importlib.util.find_spec("sentence_transformers") is not None:
        try:
            reference, by = _sentence_transformers(checkpoint), "the one installed"
        except Exception as error:  # noqa: BLE001 - whatever another library raises on a checkpoint
            yield Check(name, None, f"it cannot load the model: {first_line(error)}")
            return
    else:
        recorded = _canonical(checkpoint)
        if recorded is None:
            message = "it is not installed, and no numbers of it are recorded for these weights"
            yield Check(name, None, message)
            return
        reference, by = np.array(recorded.vectors, np.float32), recorded.by
    if reference.shape != vectors.shape:
        yield Check(name, False, f"its vectors have {reference.shape[1]} dimensions")
        return
    yield _near(name, vectors, reference, bound, f", {by}")


def _near(name: str, vectors: Vectors, reference: Vectors, bound: float, by: str) -> Check:
    """How near vectors come to those of a reference."""
    cosines = _cosines(vectors, reference)
    worst = int(cosines.argmin())
    text = repr(TEXTS[worst][:20]) if worst < len(TEXTS) else "the long text"
    shared = shared_neighbours(vectors, reference)
    message = (
        f"cosine {cosines[worst]:.7f} at least ({text}), {cosines.mean():.7f} on average, "
        f"{shared:.0%} of the nearest {NEAREST} the same{by}"
    )
    return Check(name, float(cosines[worst]) >= bound, message)


def _pools_alike(checkpoint: Checkpoint) -> bool:
    """Whether the files say the same pooling as the card: sentence-transformers sees only files."""
    try:
        alone = open_checkpoint(Card(id=checkpoint.card.id, path=checkpoint.root, max_tokens=1))
    except CheckpointError:
        return False
    return alone.pooling_source == FROM_MODULES and alone.pooling == checkpoint.pooling


def _sentence_transformers(checkpoint: Checkpoint) -> Vectors:
    library: Any = import_module("sentence_transformers")
    model = library.SentenceTransformer(str(checkpoint.root), device="cpu", local_files_only=True)
    model.max_seq_length = checkpoint.max_tokens
    return np.concatenate([model.float().encode([text], prompt="") for text in TEXTS])


def _canonical(checkpoint: Checkpoint) -> Canonical | None:
    files = weight_files(checkpoint.card.id, checkpoint.folder)
    digest = sha256(files[0]) if len(files) == 1 else ""
    recorded = msgspec.json.decode(CANONICAL.read_bytes(), type=list[Canonical])
    return next((known for known in recorded if known.sha256 == digest), None)


def shared_neighbours(x: Vectors, y: Vectors) -> float:
    """The share of each row's nearest rows, by cosine, that are nearest among both x and y."""

    def nearest(vectors: Vectors) -> NDArray[np.int64]:
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = directions @ directions.T
        np.fill_diagonal(scores, -np.inf)
        return np.argsort(-scores, axis=1)[:, :NEAREST]

    pairs = zip(nearest(x).tolist(), nearest(y).tolist(), strict=True)
    return float(np.mean([len({*mine} & {*theirs}) / NEAREST for mine, theirs in pairs]))


def _cosines(x: Vectors, y: Vectors) -> NDArray[np.float64]:
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    lengths = np.linalg.norm(x64, axis=1) * np.linalg.norm(y64, axis=1)
    return np.einsum("nd,nd->n", x64, y64) / lengths


def _range(lengths: Iterable[int]) -> str:
    known = sorted(lengths)
    return f"{known[0]} to {known[-1]}"
