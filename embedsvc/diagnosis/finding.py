"""One line of what `embedsvc doctor` says."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """What was looked at, whether it is as it should be, what was seen, and what would help."""

    mark: Literal["ok", "note", "WRONG"]
    what: str
    seen: str
    hint: str = ""


def ok(what: str, seen: str) -> Finding:
    """Something that is as it should be.

    >>> ok("cores", "2 of 4")
    Finding(mark='ok', what='cores', seen='2 of 4', hint='')
    """
    return Finding("ok", what, seen)


def note(what: str, seen: str, hint: str = "") -> Finding:
    """Something that works, but may not be what was meant."""
    return Finding("note", what, seen, hint)


def wrong(what: str, seen: object, hint: str = "") -> Finding:
    """Something that does not work. `seen` may be the error itself."""
    return Finding("WRONG", what, str(seen), hint)
