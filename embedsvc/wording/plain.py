"""Text that somebody else chose, made safe to show: in the log, on a terminal, in an error."""

LONGEST = 200
"""How many characters of such a text are shown, where there is no better limit."""
LONGEST_LINE, BEGINNING, ENDING = 700, 300, 300
"""The longest line that an error has, in characters, and the two parts that are left of a longer
one."""


def within_line(text: str) -> str:
    """Text without characters that would end the line, move the cursor, or hide something.

    >>> within_line("two\\nlines")
    'two\\\\nlines'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_line(text: str) -> str:
    """An error as one line. A very long one keeps its beginning and its end.

    Files, servers and arguments can make an error long, and the end often says what is wrong.
    """
    if len(text) > LONGEST_LINE:
        text = f"{text[:BEGINNING]}…{text[-ENDING:]}"
    return within_line(text)


def in_lines(text: str) -> str:
    """The same for an error that has several lines."""
    return "\n".join(map(in_line, text.split("\n")))


def first_line(error: Exception) -> str:
    """The first line that an error of another library says; its kind if it says nothing.

    >>> first_line(ValueError("no such model\\nsee below")), first_line(TimeoutError())
    ('no such model', 'TimeoutError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shown(text: str, longest: int = LONGEST) -> str:
    """Text on one line, with no more than so many of its characters.

    >>> shown("abcdef", 3)
    'abc…'
    """
    return within_line(text) if len(text) <= longest else f"{within_line(text[:longest])}…"
