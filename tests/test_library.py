"""The kernels' library, held against the Python that loads it."""

import ctypes
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from embedsvc.catalog.cards import Pooling
from embedsvc.errors import CardsError
from embedsvc.inference.device import open_device
from embedsvc.inference.ops.activations import Name
from embedsvc.inference.ops.native import formats, library, tape
from embedsvc.inference.ops.native.declarations import read_declarations

NATIVE = Path(library.__file__).parent


def listed(macro: str) -> list[list[str]]:
    """What a list of operations.def has, the words of each line of it."""
    text = re.sub(r"/\*.*?\*/", "", (NATIVE / "operations.def").read_text(), flags=re.DOTALL)
    found = re.findall(rf"^{macro}\((.*)\)", text, re.MULTILINE)
    return [[word.strip() for word in words.split(",")] for words in found]


def test_what_c_lists_is_what_python_uses() -> None:
    declared = library.load().declared
    for macro, names in (
        ("INSTRUCTION_FIELD", declared.instruction.names),
        ("BUFFER_FIELD", declared.buffer.names),
        ("OPERAND_FIELD", declared.instruction["x"].names),
        ("REFUSAL_FIELD", tuple(name for name, _ in declared.refusal._fields_)),
        ("OPERATION", declared.operations),
        ("(?:OTHER_)?ACTIVATION", declared.activations),
    ):
        assert tuple(words[1] for words in listed(macro)) == names, macro
    for macro, names in (
        ("SOURCE", declared.sources),
        ("KIND", declared.kinds),
        ("REASON", declared.reasons),
    ):
        assert tuple(words[0] for words in listed(macro)) == names, macro
    assert f"#define ABI {library.ABI}\n" in (NATIVE / "tape.h").read_text()
    assert {"attention", "pool_mean"} <= declared.by_text
    assert not {"linear", "add", "embedding"} & declared.by_text
    assert (declared.activations[0], declared.reasons[0]) == ("none", "FINE"), "0 means nothing"


def test_python_has_an_operation_for_every_pooling_and_activation_and_source() -> None:
    declared = library.load().declared
    assert {f"pool_{name}" for name in get_args(Pooling)} <= set(declared.operations)
    assert {name for name, _ in tape.SOURCES} == set(declared.sources)
    of_their_own = {"linear", "prelu", "xielu"}
    assert set(declared.activations) == {"none", *get_args(Name)} - of_their_own
    assert set(declared.operations) >= formats.PRODUCTS


def test_a_field_that_moved_in_c_is_found_where_it_is() -> None:
    """Two fields that changed places, which the size of the struct does not tell."""
    real = ctypes.CDLL(str(library.LIBRARY)).embedsvc_declaration
    real.restype = ctypes.c_char_p

    def declare(name: str) -> tuple[str, int] | None:
        size = ctypes.c_int64()
        text = real(name.encode(), ctypes.byref(size)).decode()
        if name == "Buffer":
            width, kind = text.split(";")[:-1]
            text = f"{kind};{width};"
        return text, size.value

    swapped = read_declarations(declare).buffer
    assert swapped.fields is not None
    assert {name: field[1] for name, field in swapped.fields.items()} == {"kind": 0, "width": 8}


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
        {"embedsvc_declaration": lambda name, size: None},
        {"embedsvc_declaration": lambda name, size: b"float width;"},
        {"embedsvc_declaration": lambda name, size: b"int64_t width;"},
    ],
    ids=["no version", "no function", "older", "no structs", "another type", "another size"],
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
