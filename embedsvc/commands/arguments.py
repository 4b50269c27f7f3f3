"""What is said of every command's arguments alike: examples first, then a line of usage."""

import argparse
from collections.abc import Iterator, Mapping
from typing import cast


def describe(parser: argparse.ArgumentParser, examples: str) -> None:
    """Give a parser that has all its arguments the help that every command has."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"examples:\n{examples}"
    words = [word for action in actions(parser) if (word := _needed(action))]
    parser.usage = " ".join([parser.prog, *words, "[options]"])


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


def _needed(action: argparse.Action) -> str:
    """How a line of usage shows it: not at all where it is an option that may be left out."""
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.option_strings:
        return f"{action.option_strings[0]} {name}" if action.required else ""
    dots = f"{name} ..." if action.nargs in ("*", "+") else name
    return dots.upper() if action.nargs != "*" else f"[{dots.upper()}]"
