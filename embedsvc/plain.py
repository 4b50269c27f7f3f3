"""Text that a stranger chose, made fit to be read: in the log, on a terminal, in an error."""

LONGEST = 200
"""Characters that are shown of it, where there is no better limit."""


def within_line(text: str) -> str:
    """Text without anything that would end the line, move the cursor, or hide what is there."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: str, longest: int = LONGEST) -> str:
    """The same, and no more than so many of its characters."""
    return within_line(text) if len(text) <= longest else f"{within_line(text[:longest])}…"
