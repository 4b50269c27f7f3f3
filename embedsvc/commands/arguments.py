"""What the arguments of all commands share: how they are read, refused and described."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from embedsvc.wording.plain import in_line
from embedsvc.wording.quantities import read_count, read_number

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Refuses arguments that are not UTF-8. Errors are one line that a terminal can show."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - it has overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        parsed, rest = super().parse_known_args(args, namespace)
        for action in actions(self):
            values = getattr(parsed, action.dest, None)
            for value in cast(list[object], values) if isinstance(values, list) else [values]:
                if isinstance(value, str) and not is_path(action) and not _is_text(value):
                    name = "/".join(action.option_strings) or action.metavar or action.dest
                    self.error(f"argument {name}: must be UTF-8, not {value!r}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        super().error(in_line(message))


def is_path(action: argparse.Action) -> bool:
    """Whether an argument names a file. Such a name may consist of any bytes."""
    return action.type is Path or action.metavar in ("PATH", "FILE", "FILES")


def complete_help(parser: argparse.ArgumentParser, examples: str) -> None:
    """Complete a parser that has all its arguments, so that its help is as that of all commands.

    The help begins with the examples, and each option's text ends with its default. A number that
    is none is refused in plain words.
    """
    for action in actions(parser):
        if action.type in NUMBERS:
            action.type = NUMBERS[action.type]
        if action.option_strings and action.nargs != 0 and action.default is not None:
            text = action.help or ""
            if "default: " not in text:
                action.help = f"{text}; default: {_written(action.default)}".removeprefix("; ")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"examples:\n{examples}"
    words = [word for action in actions(parser) if (word := _needed(action))]
    parser.usage = " ".join([parser.prog, *words, "[options]"])


def whole_number(text: str) -> int:
    """A whole number, for argparse, whose own errors name a type of Python's."""
    return _read(read_count, text)


def number(text: str) -> float:
    """Any number, for argparse."""
    return _read(read_number, text)


NUMBERS: dict[object, Callable[[str], float]] = {int: whole_number, float: number}


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The positional arguments and the options of a parser."""
    return parser._actions  # pyright: ignore[reportPrivateUsage] - argparse has no other way


def subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """The commands of a parser: name, parser and help of each."""
    for action in actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            parsers = cast(Mapping[str, argparse.ArgumentParser], action.choices)
            for choice in action._choices_actions:  # pyright: ignore[reportPrivateUsage]
                yield choice.dest, parsers[choice.dest], choice.help or ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # Python's stand-ins for bytes that are not UTF-8
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
    """How the usage shows an argument. An option that may be left out is not shown."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.option_strings:
        return f"{action.option_strings[0]} {name}" if action.required else ""
    dots = f"{name} ..." if action.nargs in ("*", "+") else name
    return dots.upper() if action.nargs != "*" else f"[{dots.upper()}]"
