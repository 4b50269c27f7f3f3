"""Models' names as people write them, and which of the known names is meant.

An exact name always wins: it is looked up before anything here is tried. Whatever a client sends,
this costs little, since names are bounded.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from embedsvc.bounds import MODEL_NAME, NAMES_COMPARED
from embedsvc.errors import BadRequest

HUB = re.compile(
    r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co|ollama\.com|registry\.ollama\.ai)/",
    re.IGNORECASE,
)
PAGE = re.compile(r"([^/?#:]+/[^/?#:]+)[/?#][^:]*(:[^:/]*)?$")
"""A repository, the rest of a browser's address, and a prompt."""
LATEST = ":latest"
LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
SEPARATORS = re.compile(r"[-_.\s]+")
SERVERS = ("library", "mlx-community", "ollama", "onnx-community", "openai", "xenova")
"""Organisations that serve or convert the models of others under their own name."""
CONVERTED = re.compile(r"(?:-(?:mlx|onnx|fp16|f16|bf16|fp32|f32))+$")
"""What a converter adds to a name if the weights only were rounded."""
NEAR = 3
"""How many names an error suggests, at most."""
ALIKE = 0.4
"""The least likeness of a name that is suggested for another; see `_likeness`."""


class Known(NamedTuple):
    """A name of a card, or of a card with one of its prompts."""

    name: str
    card: str
    prompt: str | None = None


class Names:
    """The names of one cards file."""

    def __init__(self, known: Iterable[Known]) -> None:
        self._known = list(known)
        self._whole: dict[str, list[Known]] = {}
        self._bare: dict[str, list[Known]] = {}  # without the organisation
        self._found: dict[str, Known | None] = {}
        self._pairs: list[tuple[Known, frozenset[str]]] | None = None
        for each in self._known:
            form = normal_form(each.name)
            self._whole.setdefault(form, []).append(each)
            self._bare.setdefault(form.rpartition("/")[2], []).append(each)

    def find(self, name: str) -> Known | None:
        """What a name means, if its normal form is that of just one card and prompt."""
        if name not in self._found:  # clients use the same spelling again and again
            if len(self._found) >= NAMES_COMPARED:
                self._found.clear()
            found = self._alike(name)
            self._found[name] = found[0] if len(_things(found)) == 1 else None
        return self._found[name]

    def near(self, name: str) -> list[str]:
        """The names that may be meant by one that means nothing, at most `NEAR`.

        They are those that it is ambiguous between, else those that look like it, one for each card
        and prompt.
        """
        found = list(_things(self._alike(name)).values())
        if not found:
            wanted = _pairs(normal_form(name))
            if self._pairs is None:
                some = self._known[:NAMES_COMPARED]
                self._pairs = [(each, _pairs(normal_form(each.name))) for each in some]
            scored = [(_likeness(wanted, pairs), each) for each, pairs in self._pairs]
            scored.sort(key=lambda pair: -pair[0])  # stable: the file's order
            found = _things(each for score, each in scored if score >= ALIKE).values()
        return [each.name for each in found][:NEAR]

    def _alike(self, name: str) -> list[Known]:
        form = normal_form(name)
        return self._whole.get(form) or ([] if "/" in form else self._bare.get(form, []))


def check_name(name: str, field: str = "model") -> str:
    """The name without the white space around it. Raises `BadRequest` that names the field."""
    if len(name) > MODEL_NAME:
        raise BadRequest(f"Invalid '{field}': a name has at most {MODEL_NAME} characters.")
    name = name.strip()
    if not name:
        raise BadRequest(f"Invalid '{field}': the name is empty.")
    if not name.isprintable():
        raise BadRequest(f"Invalid '{field}': a name has no line breaks or control characters.")
    return name


def spelled(name: str) -> str:
    """A name without the parts that do not tell which model it is.

    These are the address of a hub, Ollama's `:latest`, white space around the name, and the escapes
    of a URL.

    >>> spelled(" https://huggingface.co/BAAI/bge-m3/tree/main ")
    'BAAI/bge-m3'
    >>> spelled("hf.co/BAAI%2Fbge-m3:latest")
    'BAAI/bge-m3'
    >>> spelled("./models//tiny/")
    './models/tiny'
    """
    name = (unquote(name) if "%" in name else name).strip()
    if name.startswith(("./", "/")):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        return "/".join(("." if name[0] == "." else "", *parts))
    hub = HUB.match(name)
    if hub:
        name = PAGE.sub(r"\1\2", name[hub.end() :])
    name = name.strip("/")
    if name[-len(LATEST) :].lower() == LATEST:
        name = name[: -len(LATEST)].rstrip()
    return name


def normal_form(name: str) -> str:
    """One form for all names of a model, however they are written.

    It leaves out what `spelled` does, the case of ASCII letters, which of `-`, `_`, `.` and spaces
    separate words, and who serves or converts the model for others. The organisation stays, because
    a model of the same name by another organisation is another model.

    >>> normal_form("BAAI/BGE_Small_en_v1.5:latest")
    'baai/bge-small-en-v1-5'
    >>> normal_form("mlx-community/bge-m3-mlx-fp16") == normal_form("bge-m3")
    True
    >>> normal_form("acme/bge-m3") == normal_form("BAAI/bge-m3")
    False
    """
    name = spelled(name)
    if name.startswith(("./", "/")):
        return name
    form = SEPARATORS.sub("-", name.translate(LOWER))
    server, _, model = form.partition("/")
    if server not in SERVERS or not model:
        return form
    return CONVERTED.sub("", model)


def _things(known: Iterable[Known]) -> dict[tuple[str, str | None], Known]:
    """The first name for each card and prompt."""
    found: dict[tuple[str, str | None], Known] = {}
    for each in known:
        found.setdefault((each.card, each.prompt), each)
    return found


def _pairs(form: str) -> frozenset[str]:
    """All pairs of letters that stand beside each other, without the organisation."""
    form = form.rpartition("/")[2]
    return frozenset(form[i : i + 2] for i in range(len(form) - 1))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """How many pairs two names share, from 0 to 1: the coefficient of Sørensen and Dice."""
    return 2 * len(one & other) / max(len(one) + len(other), 1)
