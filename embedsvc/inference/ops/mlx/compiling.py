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
