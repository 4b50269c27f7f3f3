"""The messages that people look up are those of the code."""

import ast
import re

import pytest

from tests.support.project import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


def messages() -> set[str]:
    """All text in the code, with … for what is put into it."""
    found: set[str] = set()
    for file in (ROOT / "embedsvc").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


MESSAGES = messages()


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_message_is_in_the_code(quoted: str) -> None:
    pieces = [re.escape(piece) for piece in quoted.split("…") if piece.strip(" :.")]
    wanted = re.compile(".*?".join(pieces))
    assert any(wanted.search(message) for message in MESSAGES)


def test_a_message_that_is_not_in_the_code_is_found_out() -> None:
    assert len(QUOTED) > 30
    assert not any("The model is on holiday" in message for message in MESSAGES)
