"""How far what a backend computes in float32 may be from what it should be."""

from functools import cache

from embedsvc.diagnosis.verify import VIRTUAL_ERROR, is_virtual
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import MlxOps


def within(bound: float, ops: Ops | None = None) -> float:
    """The bound, or what the GPU of a virtual Mac keeps to, as GitHub's are, if that is more.

    `ops` are the operations that computed; without them it was MLX.
    """
    virtual = is_virtual(ops) if ops is not None else _mlx_is_virtual()
    return max(bound, VIRTUAL_ERROR) if virtual else bound


@cache
def _mlx_is_virtual() -> bool:
    return is_virtual(MlxOps("float32"))
