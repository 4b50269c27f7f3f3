"""ELECTRA: BERT whose embeddings may be narrower than its layers (Clark et al., 2020,
arXiv:2003.10555)."""

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.models.configs import Size
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = ("discriminator_predictions.", "generator_", "embeddings.position_ids")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = bert.EXPANDED


class Config(bert.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    embedding_size: Size


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> bert.Weights:
    """Weights on the device, from tensors under transformers' names."""
    return bert.prepare(
        ops,
        tensors,
        config,
        inputs,
        embedding_width=config.embedding_size,
        projection="embeddings_project" if config.embedding_size != config.hidden_size else None,
    )


forward = bert.forward
