"""Text files, however an editor saved them, wherever the service reads one."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.catalog.cards_file import read_cards
from embedsvc.daemon.environment import read_environment
from embedsvc.errors import BulkError, CardsError
from embedsvc.settings import Settings
from embedsvc.system import text_files
from embedsvc.system.text_files import NUL, NotText, decode, lines_of, read_text
from embedsvc.web.access import Access

Save = Callable[[str], Path]
SAVED: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 LE": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "all of it": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
}


@pytest.fixture(params=SAVED.values(), ids=SAVED)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Save:
    """Writes a text as one kind of editor does; the file."""

    def save(text: str) -> Path:
        (tmp_path / "file").write_bytes(request.param(text))
        return tmp_path / "file"

    return save


def test_a_text_is_read_however_it_was_saved(save: Save) -> None:
    assert read_text(save("one\nzwei ü 猫\u2028🙂\n")) == "one\nzwei ü 猫\u2028🙂\n"
    assert read_text(save("")) == ""


def test_every_file_of_an_operator_is_read_however_it_was_saved(save: Save) -> None:
    access = Access(Settings(api_keys_file=save("# mine\nsk-one\n\nsk-two")))
    for key, refused in ((b"sk-one", False), (b"sk-two", False), (b"sk-three", True)):
        headers = {b"authorization": b"Bearer " + key}
        assert (access.refusal("/v1/models", headers) is not None) == refused
    assert read_environment(save("A=1\n# ü\nB='two'\n")) == {"A": "1", "B": "two"}
    cards = read_cards(save('[models.m]\npath = "folder"\naliases = ["ü"]\n'))
    assert list(cards.by_name) == ["m", "ü"]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"one\ntwo \xff\n", 2, "not UTF-8 (byte 0xff)"),
        (b"one\r\ntwo\rcaf\xe9", 3, "not UTF-8 (byte 0xe9)"),
        (b"\xef\xbb\xbfone\n\xc3", 2, "not UTF-8 (byte 0xc3)"),
        (b"\xff\xfea\0\n\0\0\xd8b\0", 2, "not UTF-16 (byte 0x00)"),
        (b"\xff\xfea\0\n\0b", 2, "not UTF-16 (byte 0x62)"),
        (b"one\ntwo\0\n", 2, NUL),
        ("one\n".encode("utf-16-le"), 1, NUL),
        ("one\n".encode("utf-32"), 1, "UTF-32: save it as UTF-8"),
        (b"\0\0\xfe\xff" + "one\n".encode("utf-32-be"), 1, "UTF-32: save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(
    tmp_path: Path, content: bytes, line: int, reason: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    for failure in (CardsError, BulkError):
        with pytest.raises(failure) as caught:
            read_text(file, failure)
        assert str(caught.value) == f"{file}, line {line}: {reason}"
    for read in (read_cards, read_environment, lambda file: Access(Settings(api_keys_file=file))):
        with pytest.raises(CardsError, match=f"file, line {line}: "):
            read(file)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CardsError, match=r"none: No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(CardsError, match=r": Is a directory"):
        read_text(tmp_path)
    monkeypatch.setattr(text_files, "TEXT_FILE_BYTES", 1 << 20)
    with pytest.raises(CardsError, match="/dev/zero: longer than 1 MiB"):
        read_text(Path("/dev/zero"))


class Trickle(io.BufferedReader):
    """Gives some bytes at a time, as a pipe does."""

    def __init__(self, content: bytes, step: int) -> None:
        super().__init__(io.BytesIO(content))
        self._step = step

    def read1(self, size: int = -1) -> bytes:
        return super().read1(min(size, self._step))


LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\r\n"])
LONG = st.text(max_size=30)


@given(st.lists(st.tuples(LONG, LINE_ENDS)), LONG, st.integers(1, 9), st.sampled_from([*SAVED]))
def test_lines_that_come_in_pieces_are_those_of_the_whole(
    lines: list[tuple[str, str]], last: str, step: int, saved: str
) -> None:
    text = "".join(line + end for line, end in lines) + last
    if text.startswith("\ufeff"):
        return  # which would be the mark
    content = SAVED[saved](text)
    expected = decode_or_none(content)
    if expected is not None:
        found = list(lines_of(Trickle(content, step), 1 << 20))
        assert found == expected.encode().splitlines(keepends=True)


def decode_or_none(content: bytes) -> str | None:
    try:
        return decode(content)
    except NotText:
        return None


@given(st.binary(max_size=200), st.integers(1, 9))
def test_no_byte_is_lost_and_long_lines_take_no_room(content: bytes, step: int) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return
    whole = content.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    assert list(lines_of(Trickle(content, step), 1 << 20)) == whole
    short = [line if len(line) <= 5 else None for line in whole]
    assert list(lines_of(Trickle(content, step), 5)) == short


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xfe", b"\xfe\xff"]), st.integers(1, 9))
def test_bytes_that_are_no_utf16_are_never_text(content: bytes, mark: bytes, step: int) -> None:
    if content.startswith(b"\0\0"):
        return  # UTF-32
    text = decode_or_none(mark + content)
    joined = b"".join(line or b"" for line in lines_of(Trickle(mark + content, step), 1 << 20))
    if text is not None:
        assert joined == text.encode()
    elif b"\0" not in joined:
        with pytest.raises(UnicodeDecodeError):
            joined.decode()


def test_lines_of_utf32_are_refused() -> None:
    with pytest.raises(NotText, match="UTF-32"):
        list(lines_of(Trickle("one\n".encode("utf-32"), 3), 100))
