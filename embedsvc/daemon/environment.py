"""The service's environment file: lines of NAME=value, as systemd reads them, too."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from embedsvc.daemon.actions import secret
from embedsvc.errors import CardsError
from embedsvc.system.text_files import read_text

FOLDERS = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_TOKEN_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CARRIED = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *FOLDERS,
    *PROXIES,
    *map(str.lower, PROXIES),
)
"""Variables beside `EMBEDSVC_*` that the server obeys: where models are, as whom they are fetched,
and how the network is reached. A service knows them only if its own environment has them."""
NOT_READ = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables with certificates that other programs obey, and this one does not."""
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


def carried(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that an installed service is to have from the environment it is installed in.

    Paths become absolute, because a service has no folder and no home of its own.

    >>> carried({"HF_HUB_OFFLINE": "1", "no_proxy": "", "HF_HOME": "/srv/models", "LANG": "C"})
    {'HF_HUB_OFFLINE': '1', 'HF_HOME': '/srv/models'}
    """
    found = {name: environ.get(name, "").strip() for name in CARRIED}
    for name in FOLDERS:
        if found[name]:
            expanded = os.path.expandvars(os.path.expanduser(found[name]))  # noqa: PTH111 - as HF's
            found[name] = str(Path(expanded).absolute())
    return {name: value for name, value in found.items() if value}


def updated(text: str, values: Mapping[str, str]) -> str:
    """The text of a file with these values in it. Other lines stay as they are.

    Raises `CardsError` that names the variable whose value a line cannot hold.

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
            line = f"{name}={_quoted(name, missing.pop(name))}"
        lines.append(line)
    lines += [f"{name}={_quoted(name, value)}" for name, value in missing.items()]
    return "".join(f"{line}\n" for line in lines)


def _quoted(name: str, value: str) -> str:
    if PLAIN.fullmatch(value):
        return value
    if not value.isprintable():
        shown = "its value" if secret(name) else repr(value)
        raise CardsError(f"{name} cannot be kept: {shown} has a character that is not printable")
    return f'"{SPECIAL.sub(_escaped, value)}"'


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[1]}"


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\$`])', r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)
