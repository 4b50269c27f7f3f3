"""What is said of every command's arguments alike: examples first, then a line of usage."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from embedsvc.wording.plain import in_line
from embedsvc.wording.quantities import read_count, read_number

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Refuses texts that are none, and says what is wrong in a line that a terminal can show."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - it has overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        given, rest = super().parse_known_args(args, namespace)
        for action in actions(self):
            values = getattr(given, action.dest, None)
            for value in cast(list[object], values) if isinstance(values, list) else [values]:
                if isinstance(value, str) and not is_path(action) and not _is_text(value):
                    name = "/".join(action.option_strings) or action.metavar or action.dest
                    self.error(f"argument {name}: must be UTF-8, not {value!r}")
        return given, rest

    def error(self, message: str) -> NoReturn:
        super().error(in_line(message))


def is_path(action: argparse.Action) -> bool:
    """Whether it names a file, which may be of any bytes."""
    return action.type is Path or action.metavar in ("PATH", "FILE", "FILES")


def describe(parser: argparse.ArgumentParser, examples: str) -> None:
    """Give a parser that has all its arguments the help that every command has.

    An option with a default says it at the end, and a number that is none is refused in words.
    """
    for action in actions(parser):
        if action.type in NUMBERS:
            action.type = NUMBERS[action.type]
        if action.option_strings and action.nargs != 0 and action.default is not None:
            said = action.help or ""
            if "default: " not in said:
                action.help = f"{said}; default: {_written(action.default)}".removeprefix("; ")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"examples:\n{examples}"
    words = [word for action in actions(parser) if (word := _needed(action))]
    parser.usage = " ".join([parser.prog, *words, "[options]"])


def whole_number(text: str) -> int:
    """One for argparse, whose own refusal names a type of Python's."""
    return _read(read_count, text)


def number(text: str) -> float:
    """The same of any number."""
    return _read(read_number, text)


NUMBERS: dict[object, Callable[[str], float]] = {int: whole_number, float: number}


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Its positional arguments and its options."""
    return parser._actions  # pyright: ignore[reportPrivateUsage] - argparse has no other way


def subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """The commands below it: name, parser, help."""
    for action in actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            parsers = cast(Mapping[str, argparse.ArgumentParser], action.choices)
            for choice in action._choices_actions:  # pyright: ignore[reportPrivateUsage]
                yield choice.dest, parsers[choice.dest], choice.help or ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that were no UTF-8, as Python stands in for them
        return False
    return True


def _read(read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None


def _written(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default) or "none"


def _needed(action: argparse.Action) -> str:
    """How a line of usage shows it: not at all where it is an option that may be left out."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.option_strings:
        return f"{action.option_strings[0]} {name}" if action.required else ""
    dots = f"{name} ..." if action.nargs in ("*", "+") else name
    return dots.upper() if action.nargs != "*" else f"[{dots.upper()}]"
