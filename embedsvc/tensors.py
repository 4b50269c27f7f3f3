"""The weights of a checkpoint, read strictly: none missing, none left over, none misshapen."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from embedsvc.errors import CheckpointError


class Tensors:
    """The tensors of a safetensors file; taking one out twice, or leaving one in, is an error."""

    def __init__(self, model: str, file: Path) -> None:
        self._model = model
        self._file = file
        try:
            self._reader: Any = safe_open(file, framework="numpy")
            self._left: set[str] = set(self._reader.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"model `{model}`: {file}: {error}") from None

    def __contains__(self, name: str) -> bool:
        """Whether there is such a tensor, not taken yet."""
        return name in self._left

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as it is stored."""
        if name not in self._left:
            raise self._error(f"tensor `{name}` is missing")
        return tuple(self._reader.get_slice(name).get_shape())

    def take_stored(self, name: str) -> NDArray[Any]:
        """The tensor of that name as it is stored."""
        if name not in self._left:
            raise self._error(f"tensor `{name}` is missing")
        self._left.remove(name)
        return self._reader.get_tensor(name)

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor of that name, which must have that shape, as float32."""
        if name not in self._left:
            raise self._error(f"tensor `{name}` is missing")
        self._left.remove(name)
        try:
            value: NDArray[Any] = self._reader.get_tensor(name)
        except (SafetensorError, TypeError) as error:
            raise self._error(f"tensor `{name}`: {error}") from None
        if value.shape != shape:
            raise self._error(f"tensor `{name}` has shape {value.shape}, not {shape}")
        if not np.issubdtype(value.dtype, np.floating):
            raise self._error(f"tensor `{name}` holds {value.dtype}, not floats")
        return value.astype(np.float32, copy=False)

    def finish(self, unused: tuple[str, ...]) -> None:
        """Raise if a tensor was not taken, save those whose names begin with one of `unused`."""
        left = sorted(name for name in self._left if not name.startswith(unused))
        if left:
            raise self._error(f"tensor `{left[0]}` is not known ({len(left)} such)")

    def _error(self, message: str) -> CheckpointError:
        return CheckpointError(f"model `{self._model}`: {self._file}: {message}")
