"""The service's environment file: lines of NAME=value, as systemd reads them, too."""

import re
from collections.abc import Mapping
from pathlib import Path

from embedsvc.errors import CardsError
from embedsvc.system.text_files import read_text

PLAIN = re.compile(r"[\w./:@,+=%^*~-]*")
SPECIAL = re.compile(r'(["\\$`])')


def read_environment(file: Path) -> dict[str, str]:
    """The variables in a file. Raises `CardsError` that names the file and the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name.isidentifier():
            raise CardsError(f"{file}, line {number}: must be NAME=value")
        found[name] = _unquoted(value)
    return found


def updated(text: str, values: Mapping[str, str]) -> str:
    """The text of a file with these values in it. Other lines stay as they are.

    Raises `CardsError` for a value that a line cannot hold.

    >>> updated("# mine\\nA=1\\nB=2\\n", {"B": "3 4", "C": "5"})
    '# mine\\nA=1\\nB="3 4"\\nC=5\\n'
    """
    missing = dict(values)
    lines: list[str] = []
    for line in text.removesuffix("\n").split("\n") if text else ():
        name = line.partition("=")[0].strip()
        if name in values:
            if name not in missing:
                continue  # a second line for the same variable
            line = f"{name}={_quoted(missing.pop(name))}"
        lines.append(line)
    lines += [f"{name}={_quoted(value)}" for name, value in missing.items()]
    return "".join(f"{line}\n" for line in lines)


def _quoted(value: str) -> str:
    if PLAIN.fullmatch(value):
        return value
    if not value.isprintable():
        raise CardsError(f"a setting cannot be {value!r}")
    return f'"{SPECIAL.sub(_escaped, value)}"'


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[1]}"


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\$`])', r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)
