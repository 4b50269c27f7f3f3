"""Passes through `mx.compile`, for those shapes of batches that come often.

A pass that is compiled is traced once: Python builds it operation by operation for the first batch
only, and small operations are fused. That takes some 2 to 20 ms and a MiB for each shape, and there
may be hundreds of shapes. So only those are compiled that keep coming, and those least lately used
are dropped.
"""

import logging
from collections import Counter, OrderedDict, deque
from typing import NamedTuple, Protocol

import mlx.core as mx

from embedsvc.inference.ops.base import Array, Batch, CompiledPass, ForwardPass, Ops
from embedsvc.inference.ops.mlx.layout import lay_out

WINDOW = 128
"""How many of the last batches count."""
OFTEN = 4
"""How many of them have to be of one shape for its pass to be compiled. `measure` runs short passes
more often, so that a load makes the kernels and costs are those of compiled passes."""
MOST = WINDOW // OFTEN
"""How many shapes may be compiled at a time: all that can come that often."""
MOST_ROWS = 1 << 12
"""Rows of the largest batches that are compiled. What is longer computes for so long that Python's
part of it is hidden, and what is done in parts is begun part by part, which no trace can do (see
dispatch.py)."""

log = logging.getLogger(__name__)


class Compiler(Protocol):
    """What decides over compiling; it may change while passes are used."""

    compile: bool
    """Whether passes are compiled at all."""
    often: int
    """`OFTEN`, or less where it is not to be waited for."""
    plain: bool
    """How attention is done, which a pass keeps from when it was traced."""


class Shape(NamedTuple):
    """What a pass is compiled for."""

    texts: int
    length: int
    plain: bool


class CompiledPasses:
    """One pass, compiled for a few shapes. It is used on MLX's thread alone."""

    def __init__(
        self, ops: Ops, function: ForwardPass, dtype: mx.Dtype, compiler: Compiler
    ) -> None:
        self._ops = ops
        self._function = function
        self._dtype = dtype
        self._compiler = compiler
        self._traceable = True
        """Whether it can be compiled, as far as is known. Of mlx-embeddings' models, some may
        not."""
        self._compiled: OrderedDict[Shape, CompiledPass] = OrderedDict()
        """By shape, the least lately used first."""
        self._last: deque[Shape] = deque()
        """The shapes of the last batches."""
        self._uses: Counter[Shape] = Counter()
        """How many of those have each shape."""

    def __call__(self, batch: Batch) -> Array:
        shape = Shape(batch.layout.texts, batch.layout.length, self._compiler.plain)
        uses = self._count(shape)
        if self._compiler.compile and self._traceable and batch.layout.cells <= MOST_ROWS:
            run = self._compiled.get(shape)
            if run is not None:
                self._compiled.move_to_end(shape)
                return run(batch)
            if uses >= self._compiler.often:
                return self._compile(shape, batch)
        return self._function(self._ops, batch)

    def _compile(self, shape: Shape, batch: Batch) -> Array:
        """Compile the pass for batches of that shape, by the first of them; return its result."""
        run = compile_pass(self._ops, self._function, self._dtype)
        try:
            result = run(batch)
        except ValueError as error:  # MLX's, as for a pass that asks for the values of arrays
            self._traceable = False
            log.warning("a pass cannot be compiled, and is not: %s", str(error))
            return self._function(self._ops, batch)
        if len(self._compiled) == MOST:
            self._compiled.popitem(last=False)
        self._compiled[shape] = run
        return result

    def _count(self, shape: Shape) -> int:
        """Note a batch; return how many of the last ones had its shape."""
        self._last.append(shape)
        self._uses[shape] += 1
        if len(self._last) > WINDOW:
            first = self._last.popleft()
            self._uses[first] -= 1
            if not self._uses[first]:
                del self._uses[first]
        return self._uses[shape]


def compile_pass(ops: Ops, function: ForwardPass, dtype: mx.Dtype) -> CompiledPass:
    """The pass, traced when it is first used, for batches of one shape.

    MLX keeps what it traced as long as the function that it is given lives: it is freed with it.
    """

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
