"""The memory of MLX's GPU: how much there is, how much a pass may take, and what is kept."""

import mlx.core as mx

from embedsvc.inference.ops.memory import MemoryUse, return_freed_memory

CACHE_SHARE = 8
"""Freed buffers may keep 1 / CACHE_SHARE of the GPU's memory; by default MLX keeps nearly all."""
USUAL_SHARE = 2 / 3
"""The share of its memory that a small Mac has for its GPU, should Metal not tell."""


def describe_gpu() -> tuple[str, int]:
    """The GPU's name, in words for people, and the bytes of memory that it may use.

    Metal recommends how many those are: two thirds of the memory of a small Mac, three quarters of
    a large one's, or what `sudo sysctl iogpu.wired_limit_mb=...` sets. With more, macOS takes
    memory away from the GPU while it computes.
    """
    info = mx.device_info(mx.gpu)
    if not mx.metal.is_available():
        return f"{info['device_name']} (CUDA)", int(info["total_memory"])
    memory = _recommended() or int(int(info["memory_size"]) * USUAL_SHARE)
    return f"{info['device_name']} (Metal)", memory


def keep_within(memory: int) -> None:
    """Have MLX stay within so many bytes of the GPU's memory, and keep little of what is freed.

    On Metal, work waits rather than take more while other work is about to give some back. What is
    taken stays in the GPU's memory until it is freed: else macOS pages weights out after a second
    without use, and the next text waits for them (macOS before 15 does it all the same).
    """
    mx.set_cache_limit(memory // CACHE_SHARE)
    if mx.metal.is_available():
        mx.set_memory_limit(memory)
        # MLX refuses to keep more than Metal recommends, and so anything where Metal does not tell.
        mx.set_wired_limit(min(memory, _recommended()))


def _recommended() -> int:
    """The bytes of memory that Metal recommends to use at most; 0 where it does not tell."""
    return int(mx.device_info(mx.gpu).get("max_recommended_working_set_size", 0))


def memory_use() -> MemoryUse:
    """See `Hardware.memory_use`."""
    return MemoryUse(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())


def clear_cache() -> None:
    """Give freed buffers back to the system."""
    mx.clear_cache()
    return_freed_memory()
