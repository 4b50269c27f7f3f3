"""Attention of one text, a score at a time, and the kinds of attention there are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Attention, Batch, Ops

SPECS: dict[str, tuple[int, dict[str, Any]]] = {  # heads of keys, and the other fields
    "plain": (2, {}),
    "scaled": (2, {"scale": 0.3}),
    "causal": (2, {"causal": True}),
    "window": (2, {"window": 3}),
    "window of one": (2, {"window": 0}),
    "causal window": (2, {"window": 5, "causal": True}),
    "shared keys": (1, {"scale": 0.5}),
    "shared keys, window": (1, {"window": 4}),
    "biased": (2, {"bias": True}),
    "biased, shared keys, window": (1, {"bias": True, "window": 6}),
}


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, spec: Attention, first: int | None = None
) -> np.ndarray:
    """Attention of one text in float64, a score at a time, to the `first` of its tokens."""
    length, size = len(q), q.shape[1] // spec.heads
    out = np.zeros((length, spec.heads, size))
    q, k, v = (x.astype(np.float64).reshape(length, -1, size) for x in (q, k, v))
    for head in range(spec.heads):
        of = head * spec.kv_heads // spec.heads
        for i in range(length):
            seen = [
                j
                for j in range(length if first is None else first)
                if (not spec.causal or j <= i)
                and (spec.window is None or abs(i - j) <= spec.window)
            ]
            scores = k[seen, of] @ q[i, head] * spec.scale
            if spec.bias is not None:
                bias = np.array(spec.bias)[head]
                scores += bias[np.array(seen) - i + len(bias) // 2]
            weights = np.exp(scores - scores.max())
            out[i, head] = weights / weights.sum() @ v[seen, of]
    return out.reshape(length, -1)


def unpadded(ops: Ops, value: object, batch: Batch) -> NDArray[np.float32]:
    """The rows of tokens, whatever the backend's layout."""
    return np.concatenate(ops.split(ops.to_numpy(value), batch.layout))
