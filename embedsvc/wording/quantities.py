"""Numbers, sizes and times as people write them: `8GB`, `512MiB`, `1.5g`; `10m`, `1h30m`, `2d`.

The command line, the environment, cards and requests are all read by these functions. They raise
`ValueError` that says what is expected.
"""

import re
from decimal import Decimal
from typing import Annotated

Bytes = Annotated[int, "bytes"]
"""A whole number of bytes."""
Seconds = Annotated[float, "seconds"]

MOST_BYTES = 1 << 62
MOST_SECONDS = 100 * 365 * 86400.0
MOST = (1 << 31) - 1
"""The largest count of anything."""
FOR_EVER = -1.0
"""A time without end, in `keep_alive`."""

_DECIMAL = {name: 1000**power for power, name in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))}
_BINARY = {name: 1024**power for power, name in enumerate(("", "kib", "mib", "gib", "tib", "pib"))}
_LETTERS = {name: 1024**power for power, name in enumerate(("", "k", "m", "g", "t", "p"))}
SIZES = _DECIMAL | _BINARY | _LETTERS
"""How many bytes a unit has. One letter is a power of 1024, as in docker, systemd and Java."""
TIMES = {
    Decimal("1e-9"): ("ns",),
    Decimal("1e-6"): ("us", "µs", "μs"),
    Decimal("1e-3"): ("ms",),
    Decimal(1): ("s", "sec", "secs", "second", "seconds"),
    Decimal(60): ("m", "min", "mins", "minute", "minutes"),
    Decimal(3600): ("h", "hr", "hrs", "hour", "hours"),
    Decimal(86400): ("d", "day", "days"),
    Decimal(7 * 86400): ("w", "week", "weeks"),
}
"""The names of each unit of time, by its length in seconds."""
_UNITS = {name: seconds for seconds, names in TIMES.items() for name in names}
_NUMBER = r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"
_SIZE = re.compile(rf"({_NUMBER}) ?([a-z]*)", re.ASCII)
_PART = re.compile(rf"({_NUMBER}) ?([a-zµμ]+) ?")
_TIME = re.compile(rf"([+-]?)({_NUMBER}|(?:{_PART.pattern})+)")
LONGEST = 60
"""How many characters a quantity may have."""


def read_bytes(text: str) -> int:
    """A size in bytes.

    >>> read_bytes("8000000000"), read_bytes("8GB"), read_bytes("512 MiB"), read_bytes("1.5g")
    (8000000000, 8000000000, 536870912, 1610612736)
    """
    found = _SIZE.fullmatch(text.strip().lower()) if len(text) <= LONGEST else None
    if found is None or found[2] not in SIZES:
        raise ValueError("must be a size, as 8000000000, 8GB, 512MiB or 1.5g")
    size = int(Decimal(found[1]) * SIZES[found[2]])
    if size > MOST_BYTES:
        raise ValueError(f"must be at most {MOST_BYTES} bytes")
    return size


def write_bytes(size: int) -> str:
    """A size as `read_bytes` reads it, with the largest unit that leaves a whole number.

    >>> write_bytes(67108864), write_bytes(1000), write_bytes(0)
    ('64MiB', '1000', '0')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        whole, rest = divmod(size, SIZES[unit.lower()])
        if whole and not rest:
            return f"{whole}{unit}"
    return str(size)


def bytes_in_words(size: int) -> str:
    """Bytes as people read them.

    >>> bytes_in_words(1_500_000_000), bytes_in_words(42)
    ('1.5 GB', '42 bytes')
    """
    for unit, bytes_of_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.3g} {unit}"
    return f"{size} bytes"


def read_seconds(text: str) -> float:
    """A time in seconds; a number without a unit is in seconds.

    >>> read_seconds("90"), read_seconds("10m"), read_seconds("1h30m"), read_seconds("2 days")
    (90.0, 600.0, 5400.0, 172800.0)
    >>> read_seconds("250ms"), read_seconds("-1m")
    (0.25, -60.0)
    """
    found = _TIME.fullmatch(text.strip().lower()) if len(text) <= LONGEST else None
    parts = [(part[1], part[2]) for part in _PART.finditer(found[2])] if found else []
    if found is None or any(unit not in _UNITS for _, unit in parts):
        raise ValueError("must be a time, as 90, 10m, 1h30m or 2d; without a unit, seconds")
    if parts:
        seconds = float(sum(Decimal(number) * _UNITS[unit] for number, unit in parts))
    else:
        seconds = float(found[2])
    if seconds > MOST_SECONDS:
        raise ValueError("must be at most 100 years")
    return -seconds if found[1] == "-" else seconds


def read_keep_alive(value: str | float) -> float:
    """How long an unused model is kept, in seconds. -1 is for ever, and so is anything below it,
    as Ollama has it. What lies between -1 and 0 means neither, and is refused.

    >>> read_keep_alive("5m"), read_keep_alive(600), read_keep_alive("-1"), read_keep_alive("-1m")
    (300.0, 600.0, -1.0, -1.0)
    """
    seconds = read_seconds(value) if isinstance(value, str) else float(value)
    if not seconds <= MOST_SECONDS:  # NaN is refused, too
        raise ValueError("must be at most 100 years")
    if FOR_EVER < seconds < 0:
        raise ValueError("must be 0 or more, or -1 or less for ever")
    return seconds if seconds >= 0 else FOR_EVER


def read_count(text: str) -> int:
    """A whole number.

    >>> read_count("2048")
    2048
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()):
        raise ValueError("must be a whole number")
    number = int(text)
    if number > MOST:
        raise ValueError(f"must be at most {MOST}")
    return number


def read_number(text: str) -> float:
    """A number, with or without a decimal point.

    >>> read_number("0.5")
    0.5
    """
    if len(text) > LONGEST or not re.fullmatch(rf"[+-]?{_NUMBER}", text.strip(), re.ASCII):
        raise ValueError("must be a number")
    return float(text)


def read_switch(text: str) -> bool:
    """Yes or no.

    >>> read_switch("true"), read_switch("0")
    (True, False)
    """
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError("must be true or false")
