"""RoBERTa, XLM-RoBERTa, CamemBERT: BERT whose positions begin behind the padding token's id.

Liu et al., 2019, arXiv:1907.11692. multilingual-e5, BGE-M3 and Arctic-L v2.0 are this architecture.
"""

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.models import bert
from embedsvc.ops.base import Ops


class Config(bert.Config, frozen=True, kw_only=True):
    """What the pass reads of config.json."""

    pad_token_id: int

    @property
    def longest(self) -> int:
        """Tokens of the longest text there are positions for."""
        return self.max_position_embeddings - self.pad_token_id - 1


def prepare(ops: Ops, tensors: Tensors, config: Config) -> bert.Weights:
    """Weights on the device, from tensors under transformers' names, which are BERT's."""
    return bert.prepare(ops, tensors, config, first_position=config.pad_token_id + 1)


forward = bert.forward
