"""RoBERTa, XLM-RoBERTa, CamemBERT: BERT whose positions are counted from the padding token's id on.

Liu et al., 2019, arXiv:1907.11692. multilingual-e5, BGE-M3 and Arctic-L v2.0 are this architecture.
"""

from typing import Annotated

from msgspec import Meta

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = bert.UNUSED
EXPANDED = bert.EXPANDED


class Config(bert.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    pad_token_id: Annotated[int, Meta(ge=0)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest < 1:
            raise ValueError(
                f"`pad_token_id` of {self.pad_token_id} leaves no position for a token: "
                f"`max_position_embeddings` are {self.max_position_embeddings}"
            )

    @property
    def longest(self) -> int:
        """The most tokens of a text that there are positions for."""
        return self.max_position_embeddings - self.pad_token_id - 1


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> bert.Weights:
    """Weights on the device, from tensors under transformers' names, which are BERT's."""
    first = config.pad_token_id + 1
    return bert.prepare(ops, tensors, config, inputs, first_position=first)


forward = bert.forward
