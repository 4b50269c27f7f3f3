"""pyarrow, which reads and writes Parquet, where it is installed."""

import importlib
from typing import Any

from embedsvc.errors import BulkError

BUFFER_BYTES = 1 << 20
"""Read at a time, of each column."""


def arrow(module: str = "") -> Any:
    """pyarrow, or a module of it. Raises `BulkError` that says how to install it."""
    try:
        return importlib.import_module(f"pyarrow{module}")
    except ModuleNotFoundError:
        raise BulkError("Parquet needs pyarrow: pip install 'embedsvc[parquet]'") from None


def open_parquet(path: str) -> Any:
    """A `ParquetFile` that reads its row groups piece by piece. Raises `BulkError`."""
    parquet = arrow(".parquet")
    try:
        return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (OSError, arrow().ArrowException) as error:
        raise BulkError(f"{path}: {error}") from None
