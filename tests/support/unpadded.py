"""What backends lay out differently, compared as one."""

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Ops


def unpadded(ops: Ops, value: object, lengths: list[int]) -> NDArray[np.float32]:
    """Rows of real tokens only, whatever the backend's layout."""
    rows = ops.to_numpy(value)
    if ops.grid is None:
        return rows
    grid = rows.reshape(*ops.grid(len(lengths), max(lengths)), rows.shape[-1])
    return np.concatenate([text[:n] for text, n in zip(grid, lengths, strict=False)])
