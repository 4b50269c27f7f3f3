"""Text that a stranger chose, made fit to be read: in the log, on a terminal, in an error."""

LONGEST = 200
"""Characters that are shown of it, where there is no better limit."""
LONGEST_LINE, BEGINNING, ENDING = 700, 300, 300
"""Characters of a line that a person is told, and of one that is cut."""


def within_line(text: str) -> str:
    """Text without anything that would end the line, move the cursor, or hide what is there."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_line(text: str) -> str:
    """An error as a line: of a very long one its beginning and its end, which says what is wrong.

    Files, servers and arguments have a say in it.
    """
    if len(text) > LONGEST_LINE:
        text = f"{text[:BEGINNING]}…{text[-ENDING:]}"
    return within_line(text)


def in_lines(text: str) -> str:
    """The same of text that has lines of its own."""
    return "\n".join(map(in_line, text.split("\n")))


def shown(text: str, longest: int = LONGEST) -> str:
    """The same, and no more than so many of its characters."""
    return within_line(text) if len(text) <= longest else f"{within_line(text[:longest])}…"
