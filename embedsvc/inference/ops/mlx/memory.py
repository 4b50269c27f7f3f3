"""The memory of MLX's GPU: how much there is, how much a pass may take, and what is kept."""

import mlx.core as mx

from embedsvc.inference.ops.memory import MemoryUse, return_freed_memory

CACHE_SHARE = 8
"""Freed buffers may keep 1 / CACHE_SHARE of the GPU's memory; by default MLX keeps nearly all."""
BYTES_A_TOKEN = 1 << 20
"""Memory reckoned for each token of a pass: what 24 layers, 1024 wide, write in all."""
MOST_TOKENS = 1 << 16
"""Tokens of a batch, however much memory there is."""


def describe_gpu() -> tuple[str, int]:
    """The GPU's name, in words for people, and its memory in bytes."""
    info = mx.device_info(mx.gpu)
    metal = mx.metal.is_available()
    memory = info["memory_size" if metal else "total_memory"]
    return f"{info['device_name']} ({'Metal' if metal else 'CUDA'})", int(memory)


def most_tokens(memory: int) -> int:
    """Tokens of one batch, padding included, that certainly fit so much memory."""
    return min(memory // BYTES_A_TOKEN, MOST_TOKENS)


def bound_cache(memory: int) -> None:
    """Bound what MLX keeps of freed buffers by a share of so much memory."""
    mx.set_cache_limit(memory // CACHE_SHARE)


def memory_use() -> MemoryUse:
    """See `Hardware.memory_use`."""
    return MemoryUse(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())


def clear_cache() -> None:
    """Give freed buffers back to the system."""
    mx.clear_cache()
    return_freed_memory()
