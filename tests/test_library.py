"""The kernels' library, held against the Python that loads it."""

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

from embedsvc.errors import CardsError
from embedsvc.inference.device import open_device
from embedsvc.inference.ops.native import library
from embedsvc.inference.ops.native.tape import BUFFER, INSTRUCTION, OPERATIONS

NATIVE = Path(library.__file__).parent


def declared(name: str) -> list[str]:
    """The fields of a struct in tape.h."""
    text = re.sub(r"/\*.*?\*/", "", (NATIVE / "tape.h").read_text(), flags=re.DOTALL)
    body = re.search(r"typedef struct \{([^}]*)\} " + name + ";", text)
    assert body
    lines = [line.strip().split(None, 1)[1] for line in body[1].split(";") if line.strip()]
    lines = [line.removeprefix("float ").removeprefix("char ") for line in lines]
    return [field.strip(" *") for line in lines for field in line.split(",")]


def test_both_sides_write_the_same_down() -> None:
    assert declared("Instruction") == list(INSTRUCTION.names or ())
    assert declared("Buffer") == list(BUFFER.names or ())
    assert declared("Refusal") == [name for name, _ in library.Refusal._fields_]
    text = (NATIVE / "tape.h").read_text()
    assert f"#define ABI {library.ABI}\n" in text
    operations = re.search(r"enum Operation \{(.*?)OPERATIONS", text, re.DOTALL)
    assert operations
    assert re.findall(r"^    ([A-Z_]+),", operations[1], re.MULTILINE) == [
        name.upper() for name in OPERATIONS
    ]


class Other:
    """A library that was built from another version."""

    def __init__(self, **changed: Any) -> None:
        self._library = ctypes.CDLL(str(library.LIBRARY))
        self._changed = changed

    def __getattr__(self, name: str) -> Any:
        if name in self._changed:
            if self._changed[name] is None:
                raise AttributeError(name)
            return self._changed[name]
        return getattr(self._library, name)


@pytest.mark.parametrize(
    "changed",
    [
        {"embedsvc_abi": None},
        {"embedsvc_run": None},
        {"embedsvc_abi": lambda: library.ABI - 1},
        {"embedsvc_sizes": lambda which: 8},
    ],
    ids=["no version", "no function", "older", "other structs"],
)
def test_a_library_of_another_version_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    other, real = Other(**changed), ctypes.CDLL

    def load(path: str | None, *args: Any, **named: Any) -> Any:
        return other if path == str(library.LIBRARY) else real(path, *args, **named)

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(CardsError, match="another version: install embedsvc again"):
        open_device("native")


def test_a_file_that_is_no_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kernels.so"
    file.write_bytes(b"\x7fELF cut off")
    monkeypatch.setattr(library, "LIBRARY", file)
    with pytest.raises(CardsError, match="backend `native`"):
        open_device("native")
