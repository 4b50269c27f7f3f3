"""The architectures: one file each, one visible forward pass each.

To add one, write its file and its line here.
"""

from typing import Any, Protocol

from embedsvc.models import bert
from embedsvc.ops.base import Array, Batch, Ops
from embedsvc.tensors import Tensors


class Architecture(Protocol):
    """What a file in this folder offers."""

    Config: type[Any]
    """What the pass reads of config.json: a msgspec struct."""

    def prepare(self, ops: Ops, tensors: Tensors, config: Any) -> Any:
        """Weights on the device from a checkpoint's tensors, all of which must be known."""
        ...

    def forward(self, ops: Ops, weights: Any, config: Any, batch: Batch) -> Array:
        """Hidden states (N, D)."""
        ...


ARCHITECTURES: dict[str, Architecture] = {"bert": bert}
"""By `model_type` in config.json."""
