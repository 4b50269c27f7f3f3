"""One thing that was looked at."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """What it is, whether it is as it should be, what was seen, and what to do about it."""

    mark: Literal["ok", "note", "WRONG"]
    what: str
    seen: str
    hint: str = ""


def ok(what: str, seen: str) -> Finding:
    return Finding("ok", what, seen)


def note(what: str, seen: str, hint: str = "") -> Finding:
    """It works as it is, but might not be what was meant."""
    return Finding("note", what, seen, hint)


def wrong(what: str, seen: object, hint: str = "") -> Finding:
    return Finding("WRONG", what, str(seen), hint)
