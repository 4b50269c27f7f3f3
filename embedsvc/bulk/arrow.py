"""pyarrow, which reads and writes Parquet. It is installed only with the extra `parquet`."""

import base64
import importlib
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedsvc.errors import BulkError
from embedsvc.system.text_files import printable

BUFFER_BYTES = 1 << 20
"""How many bytes of each column are read at a time."""


def arrow(module: str = "") -> Any:
    """pyarrow, or a module of it. Raises `BulkError`, which says how to install it."""
    try:
        return importlib.import_module(f"pyarrow{module}")
    except ModuleNotFoundError:
        raise BulkError("Parquet needs pyarrow: pip install 'embedsvc[parquet]'") from None


@contextmanager
def open_parquet(path: Path) -> Generator[Any]:
    """A `ParquetFile` that reads its row groups piece by piece.

    Raises `BulkError`, also while the file is read.
    """
    parquet = arrow(".parquet")
    try:
        with (
            path.open("rb") as stream,
            parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
        ):
            yield file
    except (OSError, UnicodeDecodeError, arrow().ArrowException) as error:
        raise BulkError(f"{printable(path)}: {in_short(error)}") from None


def read_batches(file: Any, rows: int, columns: Sequence[str]) -> Generator[Any]:
    """All rows of a `ParquetFile`, at most `rows` at a time.

    Raises `ArrowInvalid` after the last one if there were fewer rows than the file says: Arrow may
    leave out rows of a damaged file without an error.
    """
    count = 0
    for batch in file.iter_batches(batch_size=rows, columns=columns):
        count += len(batch)
        yield batch
    check_count(count, file.metadata.num_rows)


def check_count(found: int, stated: int) -> None:
    """Raises `ArrowInvalid` if a file does not have as many rows as it says."""
    if found != stated:
        raise arrow().ArrowInvalid(
            f"damaged: {found} rows can be read of the {stated} that it says"
        )


def in_short(error: Exception) -> str:
    """The first line of an error of Arrow's, which may have many."""
    message = getattr(error, "strerror", None) or str(error)
    return message.partition("\n")[0][:300]


def json_form(scalar: Any) -> Any:
    """The value of an Arrow scalar of any type, for JSON.

    Binary values become base64. Dates, times, timestamps and durations become ISO 8601, or what
    Arrow writes for them if they have nanoseconds or lie beyond Python's years. Decimals and UUIDs
    become text. A map, and a struct that has two fields of one name, become a list of pairs. Other
    extension types become what they are stored as.
    """
    pa, types = arrow(), arrow(".types")
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return str(uuid.UUID(bytes=scalar.value.as_py()))
        return json_form(scalar.value)
    if types.is_dictionary(kind):
        return json_form(scalar.value)
    if types.is_map(kind):
        return [[json_form(pair[0]), json_form(pair[1])] for pair in scalar.values]
    if types.is_struct(kind):
        fields = [(kind.field(i).name, json_form(scalar[i])) for i in range(kind.num_fields)]
        named = dict(fields)
        return named if len(named) == len(fields) else [list(field) for field in fields]
    if hasattr(scalar, "values"):  # lists of every sort
        return [json_form(value) for value in scalar.values]
    if types.is_floating(kind):
        return float(scalar.as_py())
    if hasattr(scalar, "as_buffer"):
        return _bytes_form(scalar)
    if getattr(kind, "unit", None) == "ns":
        scalar = _microseconds(scalar)
    return _time_form(scalar)


def _bytes_form(scalar: Any) -> str:
    """A string or bytes. A string may have bytes that are not UTF-8; they are escaped."""
    content: bytes = scalar.as_buffer().to_pybytes()
    if "string" in str(scalar.type):
        return content.decode(errors="backslashreplace")
    return base64.b64encode(content).decode()


def _microseconds(scalar: Any) -> Any:
    """A time in microseconds if that is exact, as Python has no nanoseconds."""
    pa, types = arrow(), arrow(".types")
    kind = scalar.type
    if scalar.value % 1000:
        return scalar
    if types.is_timestamp(kind):
        return scalar.cast(pa.timestamp("us", kind.tz))
    return scalar.cast(pa.time64("us") if types.is_time64(kind) else pa.duration("us"))


def _time_form(scalar: Any) -> Any:
    """A number, or a date or time."""
    pa = arrow()
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # nanoseconds, far years, unknown time zones
        pass
    try:
        text: str = scalar.cast("string").as_py()
    except (ValueError, NotImplementedError):
        naive = pa.scalar(scalar.value, pa.timestamp(scalar.type.unit))
        text = f"{naive.cast('string').as_py()}Z"
    return str(scalar.value) if "<" in text else text  # Arrow cannot write it either
