"""What msgspec says about values of a wrong type, without the names of Python's types."""

import re

NAMES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LONGEST = re.compile("a string of length <= ([0-9]+)")
_TYPES = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")


def plain_types(message: str) -> str:
    """One of msgspec's messages, with types in plain words. Other messages stay as they are.

    >>> plain_types("Expected `int | null`, got `str`")
    'expected a whole number or null, not a string'
    >>> plain_types("Expected `array` of length 2, got 3")
    'expected a list of length 2, not 3'
    >>> plain_types("Expected `str` of length <= 200")
    'expected a string of at most 200 characters'
    """
    if not message.startswith("Expected "):
        return message
    worded = _TYPES.sub(_words, message).replace(", got ", ", not ")
    worded = _LONGEST.sub(r"a string of at most \1 characters", worded)
    return worded[0].lower() + worded[1:]


def _words(found: re.Match[str]) -> str:
    *others, last = [NAMES.get(name, name) for name in found[1].split(" | ")]
    return f"{', '.join(others)} or {last}" if others else last
