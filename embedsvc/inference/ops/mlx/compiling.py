"""Passes through `mx.compile`, which fuses their operations, once for each shape of a batch."""

import mlx.core as mx

from embedsvc.inference.ops.base import CompiledPass, ForwardPass, Ops
from embedsvc.inference.ops.mlx.layout import lay_out


def compile_pass(ops: Ops, function: ForwardPass, dtype: mx.Dtype) -> CompiledPass:
    """The pass, compiled for the shape of a batch when the first of that shape comes."""

    @mx.compile
    def fast(*grids: mx.array) -> mx.array:
        return function(ops, lay_out(grids, dtype))

    return lambda batch: fast(*batch.layout.grids)


def leave_thread() -> None:
    """Free what MLX keeps of the calling thread, which is about to end and computes no more.

    Left to itself, MLX frees compiled passes only when the thread is gone, and so their parts that
    are Python's without the lock that Python needs for it (mlx#4373).
    """
    mx.clear_streams()
