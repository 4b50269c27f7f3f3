"""What a backend says about the hardware that it runs on."""

from collections.abc import Callable
from typing import Literal, Protocol

from embedsvc.catalog.cards import Dtype
from embedsvc.inference.ops.memory import MemoryUse


class Hardware(Protocol):
    """One backend on this machine."""

    @property
    def name(self) -> Literal["mlx", "native", "numpy"]: ...

    @property
    def device(self) -> str:
        """The hardware, in words for people."""
        ...

    @property
    def dtype(self) -> Dtype:
        """The type of weights, and of what is multiplied by them."""
        ...

    @property
    def dtypes(self) -> tuple[Dtype, ...]:
        """Those that it can compute in."""
        ...

    @property
    def slots(self) -> int:
        """How many batches should run at once."""
        ...

    @property
    def max_batch_tokens(self) -> int:
        """Tokens of one batch, padding included, beyond which nothing is gained."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of memory that weights and passes may use together."""
        ...

    @property
    def pass_memory(self) -> int:
        """Bytes of them that are kept for what passes compute."""
        ...

    def memory_use(self) -> MemoryUse:
        """Memory in use on the device now; may be called on any thread."""
        ...

    @property
    def grid(self) -> Callable[[int, int], tuple[int, int]] | None:
        """The shape that a batch is padded to; None where nothing is padded.

        `grid(texts, longest)` is (rows, length): `grid(3, 17)` is (4, 32) on MLX.
        """
        ...

    @property
    def pipelined(self) -> bool:
        """Whether `begin` returns before the work is done, and any thread may call `to_numpy`."""
        ...
