"""The pickle of a state dict, interpreted: what it may have, and all else refused by its place."""

import pytest

from embedsvc.checkpoints.torch_pickle import OTHERS, STEPS, BadPickle, View, read_state_dict
from tests.support.torch_files import (
    PROTOCOL,
    name,
    number,
    numbers,
    state_dict,
    storage,
    tensor,
    text,
    values,
)

SIX = storage("FloatStorage", "0", 6)
ONE = tensor(SIX, (2, 3), (3, 1))


def refusal(program: bytes) -> str:
    with pytest.raises(BadPickle) as caught:
        read_state_dict(program)
    return str(caught.value)


def test_a_state_dict_is_its_tensors() -> None:
    found = read_state_dict(state_dict({"a": ONE, "b.c": tensor(SIX, (), (), 5)}))
    assert list(found) == ["a", "b.c"]
    assert (found["a"].shape, found["a"].strides, found["a"].offset) == ((2, 3), (3, 1), 0)
    assert (found["b.c"].shape, found["b.c"].offset) == ((), 5)
    assert found["a"].storage.key == "0"


def test_a_plain_dict_is_one_too() -> None:
    found = read_state_dict(PROTOCOL + b"}" + text("a") + ONE + b"s.")
    assert type(found["a"]) is View


def test_every_opcode_but_those_of_tensors_is_refused_by_its_place() -> None:
    known = {*STEPS, ord(".")}
    assert len(known) == 31
    assert known.isdisjoint(map(ord, OTHERS))
    for code in set(range(256)) - known:
        said = refusal(PROTOCOL + b"NN" + bytes([code]) + b"\1" * 20)
        shown = OTHERS.get(chr(code), f"0x{code:02x}")
        assert said.startswith(f"the opcode {shown} is none of a plain state dict's (byte 4 ")


@pytest.mark.parametrize(
    "what",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "UntypedStorage"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch", "BoolStorage"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch\x1b", "FloatStorage"),
        ("__builtin__", "x" * 5000),
    ],
)
@pytest.mark.parametrize("on_stack", [False, True])
def test_every_other_name_is_refused(what: tuple[str, str], on_stack: bool) -> None:
    called = text(what[0]) + text(what[1]) + b"\x93" if on_stack else name(*what)
    said = refusal(PROTOCOL + called + b")R.")
    assert repr(".".join(what)[:100]) in said
    assert "which is not called or looked up (byte " in said


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"", "it ends in the midst of an opcode"),
        (b"\x80", "it ends in the midst of an opcode (byte 0"),
        (b"\x80\x01.", "it is of protocol 1, and 2 to 5 are read"),
        (b"\x80\x06.", "it is of protocol 6"),
        (b"\x95" + b"\xff" * 8, "a frame is longer than what is left"),
        (b"X\xff\xff\xff\xff", "it ends in the midst of an opcode"),
        (b"X\1\0\0\0\xff", "a text is not in UTF-8"),
        (b"\x8a\x09" + b"\1" * 9, "a number of 9 bytes, over 8"),
        (b"\x8b\xff\xff\xff\x7f", "the opcode LONG4"),
        (b"c", "it names ''"),
        (b"cos", "it names 'o'"),
        (b".", "a value is missing"),
        (b"(.", "a value is missing (byte 1"),
        (b"N(\x85", "a value is missing (byte 2"),  # nothing below a mark is taken
        (b"t", "a mark is missing"),
        (b"NN.", "what it makes is no state dict"),
        (b"N.", "what it makes is no state dict"),
        (b"}(.", "a value is missing"),
        (b"}" + text("a") + b"K\1s.", "what it makes is no state dict: 'a' is no tensor"),
        (b"}K\1K\1s.", "a key that is no text"),
        (b"}" + (text("a") + b"K\1s") * 2, "the key 'a' is there twice"),
        (b"}(K\1u.", "items for what is no dict, or one without a value"),
        (b"N" + text("a") + b"K\1s.", "items for what is no dict"),
        (b"h\0", "nothing was kept as 0"),
        (b"j\xff\xff\xff\xff", "nothing was kept as 4294967295"),
        (b"}}b", "attributes other than a state dict's"),
        (b"}N}" + text("__dict__") + b"NsbN", "attributes other"),
        (text("a") + b"NQ", "it refers to what is no storage"),
        (text("storage") + b"\x85Q", "it refers to what is no storage"),
        (b"K\7Q", "it refers to what is no storage"),
        (values(text("storage"), name("collections", "OrderedDict")) + b"Q", "what is no storage"),
        (b"))R", "a call other than those that make tensors and dicts"),
        (name("torch", "FloatStorage") + b")R", "a call other than those"),
        (name("collections", "OrderedDict") + b"(NtR", "a call other than those"),
        (name("torch._utils", "_rebuild_tensor_v2") + b")R", "a call other than those"),
        (name("torch._utils", "_rebuild_parameter") + values(b"N", b"N", b"}") + b"R", "a call"),
        (name("os\n", "system"), "it names 'os.'"),
        (b"K" + b")" * 3 + b"\x93", "a name that is no text"),
    ],
)
def test_what_no_state_dict_has_is_refused_by_its_place(program: bytes, said: str) -> None:
    found = refusal(program)
    assert said in found
    assert found.endswith(" of its data.pkl)")


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "said"),
    [
        ((2, 3), (3, 1), 1, "a tensor beyond the 6 numbers of its storage"),
        ((2, 3), (4, 1), 0, "a tensor beyond the 6 numbers"),
        ((7,), (1,), 0, "a tensor beyond the 6 numbers"),
        ((2**62, 2**62), (2**62, 1), 0, "a tensor of shape (4611686018427387904, 4611686018427387"),
        ((0, 2**62), (1, 1), 0, "a tensor of shape (0, 4611686018427387904) and 2 strides"),
        ((0,), (1,), 7, "a tensor beyond the 6 numbers"),
        ((2**40,), (1,), 0, "a tensor beyond the 6 numbers"),
        ((2**40,), (0,), 0, "a tensor of 1099511627776 numbers, of which its storage has less"),
        ((7, 1), (0, 0), 0, "a tensor of 7 numbers"),
        ((), (), 6, "a tensor beyond the 6 numbers"),
        ((-1,), (1,), 0, "a tensor of sizes that are no counts"),
        ((2,), (-1,), 3, "a tensor of sizes that are no counts"),
        ((2,), (1,), -1, "a tensor of sizes that are no counts"),
        ((2,), (1, 1), 0, "a tensor of shape (2,) and 2 strides"),
        ((1,) * 9, (1,) * 9, 0, "a tensor of shape (1, 1, 1, 1, 1, 1, 1, 1, 1) and 9 strides"),
    ],
)
def test_a_tensor_beside_its_storage_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, said: str
) -> None:
    assert said in refusal(state_dict({"a": tensor(SIX, shape, strides, offset)}))


@pytest.mark.parametrize("wrong", [b"N", b"\x88", b"}", text("2"), b")", values(b"N")])
def test_numbers_that_are_none_are_refused(wrong: bytes) -> None:
    rest = values(SIX, wrong, numbers((2,)), numbers((1,)), b"\x89", b"}") + b"R"
    assert "a tensor of sizes that are no counts" in refusal(
        state_dict({"a": name("torch._utils", "_rebuild_tensor_v2") + rest})
    )
    counted = storage("FloatStorage", "0", 6).replace(number(6), wrong)
    assert "byte" in refusal(state_dict({"a": tensor(counted, (2,), (1,))}))


def test_a_program_without_end_takes_no_more_than_so_many_steps() -> None:
    assert "it takes more than 500000 steps" in refusal(b"}" * (8 << 20))
    assert "it takes more than 500000 steps" in refusal(b"(" * (8 << 20))


def test_what_is_deep_or_shared_a_billion_times_takes_no_more_than_its_steps() -> None:
    deep = b")" + b"\x85" * 100_000
    assert "no state dict" in refusal(deep + b".")
    laughs = b")q\0" + b"h\0h\0\x86q\0" * 5000
    assert "no state dict" in refusal(laughs + b".")
    assert "it refers to what is no storage" in refusal(laughs + b"Q")
    assert "a key that is no text" in refusal(laughs + b"}h\0Ns")
