"""`embedsvc convert MODEL OUT`: write the model in another precision, and print what that costs."""

import argparse
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Card, FloatDtype
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.checkpoints.quantized import BITS, GROUP_SIZES, MODES
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.checkpoints.tensor_files import weight_files
from embedsvc.commands.model_options import add_model, card_named, on_device, open_model
from embedsvc.diagnosis.verify_scores import scores_of
from embedsvc.diagnosis.verify_tokens import token_vectors_of
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.texts.tokenizer import open_tokenizer

EXAMPLES = """\
  embedsvc convert bge-m3 bge-m3-8bit --bits 8
  embedsvc convert bge-m3 bge-m3-mxfp8 --mode mxfp8
  embedsvc convert bge-reranker-v2-m3 reranker-8bit --bits 8
  embedsvc convert all-MiniLM-L6-v2 minilm-half --dtype float16
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    parser.add_argument("out", type=Path, help="folder to write, which is not there yet")
    parser.add_argument(
        "--dtype", choices=get_args(FloatDtype), help="of what is not quantised; default: as it is"
    )
    parser.add_argument(
        "--bits", type=int, choices=BITS, help="quantise matrices to so many; default: none"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        choices=GROUP_SIZES,
        help="weights with one scale; default: 64, or the mode's own",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="affine",
        help="quantise as MLX's mode of that name does; all but affine have bits of their own",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder, and print sizes and what it cost. Raises `SetupError`."""
    card = card_named(args.model, args.models)
    original = open_model(card)
    convert(original, args.out, Precision(args.dtype, args.bits, args.group_size, args.mode))
    task = original.task if original.pair_template else None  # files of a decoder may not say it
    converted = open_model(Card(id=card.id, path=args.out, dtype=card.dtype, task=task))
    compute, cost = (_vectors, _cosines) if original.scoring is None else (scores_of, _apart)
    if original.late is not None and not original.pooling:
        compute, cost = token_vectors_of, _cosines
    before = on_device(args.backend, original, lambda ops: compute(ops, original))
    after = on_device(args.backend, converted, lambda ops: compute(ops, converted))
    print(f"{args.out}: {_megabytes(converted):.1f} MB of weights, were {_megabytes(original):.1f}")
    print(cost(before, after))
    told = f' and task = "{task}"' if task else ""
    print(f"a card for it: [models.\"{card.id}\"] with path = '{args.out.resolve()}'{told}")
    return 0


def _cosines(before: NDArray[Any], after: NDArray[Any]) -> str:
    """How near vectors (n, D) come to the original's."""
    cosines = np.einsum("nd,nd->n", before, after)
    cosines /= np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return (
        f"cosine to the original, of {len(cosines)} vectors: "
        f"{cosines.mean():.6f} on average, {cosines.min():.6f} at worst"
    )


def _apart(before: NDArray[Any], after: NDArray[Any]) -> str:
    """How near scores (n, labels) come to the original's, and which share of any two stay in its
    order.

    >>> print(_apart(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.2], [1.0]])))
    scores of 3 pairs: off by 0.2000 of their range on average, 0.5000 at worst; 67% in order
    """
    off = np.abs(after - before) / (float(np.ptp(before)) or 1)
    one, other = np.triu_indices(len(before), 1)
    kept = (before[one] > before[other]) == (after[one] > after[other])
    return (
        f"scores of {len(off)} pairs: off by {off.mean():.4f} of their range on average, "
        f"{off.max():.4f} at worst; {kept.mean():.0%} in order"
    )


def _vectors(ops: Ops, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """The vectors (n, D) of the sample texts."""
    encoder = load_encoder(ops, checkpoint)
    texts = open_tokenizer(checkpoint, encoder.rows).encode(TEXTS)
    return encoder.encode([ids[: checkpoint.max_tokens] for ids in texts]).astype(np.float64)


def _megabytes(checkpoint: Checkpoint) -> float:
    files = weight_files(checkpoint.card.id, checkpoint.folder)
    return sum(file.stat().st_size for file in files) / 1e6
