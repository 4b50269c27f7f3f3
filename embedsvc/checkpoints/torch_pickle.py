"""Interprets the pickle in a torch file, as far as a plain state dict goes, and nothing beyond.

A pickle is a program for a small machine with a stack, and Python's own interpreter calls whatever
the program names. This one calls and imports nothing: of the opcodes it knows those that torch.save
writes for names and tensors, of the names those in `NAMES`, which stand for themselves. What a
program may take is bounded by its steps. The file has more than 300 lines because all that a
program can do is to be seen in one place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from embedsvc.bounds import TORCH_STEPS
from embedsvc.checkpoints.tensor_files import is_possible

STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ByteStorage": "U8",
}
"""The kinds of storages, by safetensors' names for their types."""
ORDERED_DICT = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
NAMES = {ORDERED_DICT, TENSOR, PARAMETER, *STORAGES}
STOP = ord(".")
OTHERS = {
    "F": "FLOAT", "I": "INT", "L": "LONG", "\x8b": "LONG4", "G": "BINFLOAT", "S": "STRING",
    "T": "BINSTRING", "U": "SHORT_BINSTRING", "V": "UNICODE", "\x8d": "BINUNICODE8",
    "B": "BINBYTES", "C": "SHORT_BINBYTES", "\x8e": "BINBYTES8", "\x96": "BYTEARRAY8",
    "\x97": "NEXT_BUFFER", "\x98": "READONLY_BUFFER", "]": "EMPTY_LIST", "a": "APPEND",
    "e": "APPENDS", "l": "LIST", "d": "DICT", "\x8f": "EMPTY_SET", "\x90": "ADDITEMS",
    "\x91": "FROZENSET", "p": "PUT", "g": "GET", "0": "POP", "1": "POP_MARK", "2": "DUP",
    "i": "INST", "o": "OBJ", "\x81": "NEWOBJ", "\x92": "NEWOBJ_EX", "P": "PERSID",
    "\x82": "EXT1", "\x83": "EXT2", "\x84": "EXT4",
}  # fmt: skip
"""Opcodes that no plain state dict has, to refuse them by name."""


class BadPickle(ValueError):
    """What is wrong with a pickle, in words."""


@dataclass(frozen=True, slots=True)
class Name:
    """Something that a pickle names. It stands for itself, and is never looked up."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in a member of the archive."""

    dtype: str
    """A value of `STORAGES`."""
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: some numbers of a storage, `strides` of them apart in each dimension."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(content: bytes) -> dict[str, View]:
    """The tensors of a state dict, by name. Raises `BadPickle`."""
    return _Machine(content).run()


class _Machine:
    """Runs one program. The position of its opcode is in every error."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        self._opcode = 0  # where it is
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> dict[str, View]:
        for _ in range(TORCH_STEPS):
            self._opcode = self._at
            code = self._bytes(1)[0]
            if code == STOP:
                return self._result()
            step = STEPS.get(code)
            if step is None:
                name = OTHERS.get(chr(code), f"0x{code:02x}")
                raise self._error(f"the opcode {name} is none of a plain state dict's")
            step(self)
        raise self._error(f"it takes more than {TORCH_STEPS} steps")

    def _result(self) -> dict[str, View]:
        found = self._pop()
        if self._stack or self._marks or type(found) is not dict:
            raise self._error("what it makes is no state dict")
        for name, value in cast(dict[str, Any], found).items():
            if type(value) is not View:
                raise self._error(f"what it makes is no state dict: {name[:100]!r} is no tensor")
        return cast(dict[str, View], found)

    # The stack, and the bytes of the program

    def _error(self, problem: str) -> BadPickle:
        return BadPickle(f"{problem} (byte {self._opcode} of its data.pkl)")

    def _bytes(self, count: int) -> bytes:
        found = self._content[self._at : self._at + count]
        if len(found) < count:
            raise self._error("it ends in the midst of an opcode")
        self._at += count
        return found

    def number(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._bytes(count), "little", signed=signed)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._error("a value is missing")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise self._error("a mark is missing")
        mark = self._marks.pop()
        found = self._stack[mark:]
        del self._stack[mark:]
        return found

    # Opcodes

    def proto(self) -> None:
        version = self.number(1)
        if not 2 <= version <= 5:
            raise self._error(f"it is of protocol {version}, and 2 to 5 are read")

    def frame(self) -> None:
        if self.number(8) > len(self._content) - self._at:
            raise self._error("a frame is longer than what is left")

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def long1(self) -> None:
        length = self.number(1)
        if length > 8:
            raise self._error(f"a number of {length} bytes, over 8")
        self.push(self.number(length, signed=True))

    def text(self, size: int) -> None:
        try:
            self.push(self._bytes(self.number(size)).decode())
        except UnicodeDecodeError:
            raise self._error("a text is not in UTF-8") from None

    def tuple_of(self, count: int) -> None:
        self.push(tuple([self._pop() for _ in range(count)][::-1]))

    def tuple_since_mark(self) -> None:
        self.push(tuple(self._since_mark()))

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def put(self, size: int) -> None:
        self._memo[self.number(size)] = self._top()

    def get(self, size: int) -> None:
        index = self.number(size)
        if index not in self._memo:
            raise self._error(f"nothing was kept as {index}")
        self.push(self._memo[index])

    def set_item(self) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def set_items(self) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise self._error("items for what is no dict, or one without a value")
        found = cast(dict[str, Any], target)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise self._error("a key that is no text")
            if key in found:
                raise self._error(f"the key {key[:100]!r} is there twice")
            found[key] = value

    def build(self) -> None:
        """Attributes: those of a state dict are versions of its modules, which nobody needs."""
        state, target = self._pop(), self._top()
        if type(state) is not dict or type(target) is not dict or set(state) != {"_metadata"}:  # pyright: ignore[reportUnknownArgumentType]
            raise self._error("attributes other than a state dict's")

    def name_in_lines(self) -> None:
        end = self._at
        for _ in range(2):
            end = self._content.find(b"\n", end) + 1 or len(self._content)
        self._name(self._bytes(end - self._at)[:-1].replace(b"\n", b".", 1).decode("latin-1"))

    def name_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise self._error("a name that is no text")
        self._name(f"{module}.{name}")

    def _name(self, text: str) -> None:
        if text not in NAMES:
            raise self._error(f"it names {text[:100]!r}, which is not called or looked up")
        self.push(Name(text))

    def persistent_id(self) -> None:
        match self._pop():
            case ("storage", Name(text=kind), str(key), str(), int(count)) if kind in STORAGES:
                self.push(Storage(STORAGES[kind], key, count))
            case _:
                raise self._error("it refers to what is no storage")

    def reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        match name, arguments:
            case Name(text="collections.OrderedDict"), ():
                self.push({})
            case (
                Name(text="torch._utils._rebuild_tensor_v2"),
                (Storage() as storage, offset, shape, strides, bool(), dict()),
            ):
                self.push(self._view(storage, offset, shape, strides))
            case Name(text="torch._utils._rebuild_parameter"), (View() as view, bool(), dict()):
                self.push(view)
            case _:
                raise self._error("a call other than those that make tensors and dicts")

    def _view(self, storage: Storage, offset: Any, shape: Any, strides: Any) -> View:
        """A tensor, once it lies in its storage and has no more numbers than it."""
        if type(shape) is not tuple or type(strides) is not tuple:
            raise self._error("a tensor without a shape")
        sizes, steps = cast(tuple[Any, ...], shape), cast(tuple[Any, ...], strides)
        numbers = (storage.count, offset, *sizes, *steps)
        if any(type(each) is not int or each < 0 for each in numbers):
            raise self._error("a tensor of sizes that are no counts")
        if len(sizes) != len(steps) or not is_possible(sizes):
            raise self._error(f"a tensor of shape {sizes[:9]} and {len(steps)} strides")
        count = math.prod(sizes)
        end = offset
        if count:
            end += 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if end > storage.count:
            raise self._error(f"a tensor beyond the {storage.count} numbers of its storage")
        if count > storage.count:
            raise self._error(f"a tensor of {count} numbers, of which its storage has less")
        return View(storage, offset, sizes, steps)


STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("J"): lambda machine: machine.push(machine.number(4, signed=True)),
    ord("K"): lambda machine: machine.push(machine.number(1)),
    ord("M"): lambda machine: machine.push(machine.number(2)),
    0x8A: _Machine.long1,
    ord("X"): lambda machine: machine.text(4),
    0x8C: lambda machine: machine.text(1),
    ord(")"): lambda machine: machine.push(()),
    0x85: lambda machine: machine.tuple_of(1),
    0x86: lambda machine: machine.tuple_of(2),
    0x87: lambda machine: machine.tuple_of(3),
    ord("t"): _Machine.tuple_since_mark,
    ord("}"): lambda machine: machine.push({}),
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    0x94: _Machine.memoize,
    ord("q"): lambda machine: machine.put(1),
    ord("r"): lambda machine: machine.put(4),
    ord("h"): lambda machine: machine.get(1),
    ord("j"): lambda machine: machine.get(4),
    ord("c"): _Machine.name_in_lines,
    0x93: _Machine.name_on_stack,
    ord("Q"): _Machine.persistent_id,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
"""What is done at each opcode; `STOP` ends a program, and all others are refused."""
