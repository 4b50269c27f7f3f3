"""`embedsvc completion SHELL`: the script with which a shell completes commands and options."""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

from embedsvc.commands.arguments import actions, subcommands

EXAMPLES = """\
  echo 'source <(embedsvc completion bash)' >> ~/.bashrc
  echo 'source <(embedsvc completion zsh)' >> ~/.zshrc     # below compinit
  embedsvc completion fish > ~/.config/fish/completions/embedsvc.fish
"""
BASH = """\
_embedsvc() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} at= known= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${COMP_WORDS[i]}" in
            %(paths)s) at="$at ${COMP_WORDS[i]}" ;;
        esac
    done
    case "$at $before" in
%(values)s
        *) case "$at" in
%(words)s
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$known" -- "$word"))
}
complete -o default -F _embedsvc embedsvc
"""
"""The script for bash. Where it knows no words, bash completes files."""
BASH_MODELS = '$("${COMP_WORDS[0]}" models --names 2>/dev/null)'
FISH_MODELS = "(embedsvc models --names 2>/dev/null)"
"""Models are listed when they are needed, because the folder decides which cards there are."""
ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


class Command(NamedTuple):
    """A command, named with the commands that lead to it: ("service", "install")."""

    path: tuple[str, ...]
    parser: argparse.ArgumentParser
    help: str


def add(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    parser.add_argument("shell", choices=SCRIPTS, help=", ".join(SCRIPTS))


def run(args: argparse.Namespace) -> int:
    """Print the script. `args.program` is the parser of all commands."""
    print(SCRIPTS[args.shell](list(_commands(args.program))), end="")
    return 0


def _bash(commands: list[Command]) -> str:
    values: list[str] = []
    words: list[str] = []
    for path, parser, _ in commands:
        at = "".join(f" {name}" for name in path)
        known: list[str] = []
        for action in actions(parser):
            choices = BASH_MODELS if _names_model(action) else " ".join(_choices(action))
            known += action.option_strings or [choices]
            if action.option_strings and action.nargs != 0:
                names = "|".join(f'"{at} {option}"' for option in action.option_strings)
                values.append(f'        {names}) known="{choices}" ;;')
        words.append(f'            "{at}") known="{" ".join(known)}" ;;')
    paths = "|".join(
        f'"{"".join(f" {name}" for name in command.path)}"' for command in commands[1:]
    )
    return BASH % {"paths": paths, "values": "\n".join(values), "words": "\n".join(words)}


def _fish(commands: list[Command]) -> str:
    lines: list[str] = []
    for path, parser, text in commands:
        if path:
            lines.append(_line(path[:-1], f"-f -a {path[-1]} -d {_quoted(text)}"))
        for action in actions(parser):
            choices = FISH_MODELS if _names_model(action) else " ".join(_choices(action))
            described = f"-d {_quoted(action.help or '')}"
            if action.option_strings:
                names = " ".join(
                    f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                    for option in action.option_strings
                )
                takes = "" if action.nargs == 0 else f" -x -a '{choices}'" if choices else " -r"
                lines.append(_line(path, f"{names}{takes} {described}"))
            elif choices and not list(subcommands(parser)):
                lines.append(_line(path, f"-f -a '{choices}'"))
    return "\n".join(lines) + "\n"


def _line(path: tuple[str, ...], what: str) -> str:
    seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in path)
    return f"complete -c embedsvc -n '{seen or '__fish_use_subcommand'}' {what}"


def _quoted(text: str) -> str:
    """A text in the single quotes of fish.

    >>> _quoted("a model's name")
    "'a model\\\\'s name'"
    """
    return "'" + text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'") + "'"


def _commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = (), text: str = ""
) -> Iterator[Command]:
    """This command, then all commands below it."""
    yield Command(path, parser, text)
    for name, command, described in subcommands(parser):
        yield from _commands(command, (*path, name), described)


def _choices(action: argparse.Action) -> list[str]:
    """The values that an argument may have. For settings, `commands/settings.py` keeps them
    apart."""
    return [str(choice) for choice in action.choices or vars(action).get("completes", ())]


def _names_model(action: argparse.Action) -> bool:
    return action.dest == "model"


def _zsh(commands: list[Command]) -> str:
    return ZSH + _bash(commands)


SCRIPTS: dict[str, Callable[[list[Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""By shell, the function that makes its script from all commands."""
