"""What the command says of itself: examples that work, before anything else."""

import argparse
import re
import shlex
from typing import Literal, get_args, get_origin

import msgspec
import pytest

from embedsvc.cli import COMMANDS, _command, _parser, main
from embedsvc.commands.arguments import actions, subcommands
from embedsvc.commands.service import ACTIONS
from embedsvc.settings import Settings, option, read_settings


@pytest.mark.parametrize("name", ["", *COMMANDS, *(f"service {action}" for action in ACTIONS)])
def test_help_begins_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    usage, examples, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: {f'embedsvc {name}'.strip()} ")
    assert "\n" not in usage
    assert examples.startswith("examples:\n  ")


def parsers() -> dict[str, argparse.ArgumentParser]:
    """All of them by name, those of a service's actions too."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name in COMMANDS:
        parser = {word: found for word, found, _ in subcommands(_parser([name]))}[name]
        found[name] = parser
        found |= {f"{name} {word}": below for word, below, _ in subcommands(parser)}
    return found


OPTIONS = [
    (f"{name} {action.option_strings[0]}", action)
    for name, parser in parsers().items()
    for action in actions(parser)
    if action.option_strings and action.nargs != 0  # a switch is off
]


@pytest.mark.parametrize(("name", "action"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_the_help_of_every_option_ends_with_its_default(name: str, action: argparse.Action) -> None:
    text = action.help or ""
    if action.required:
        assert "default" not in text
        return
    said, _, value = text.rpartition("; default: ")
    assert said, f"{name}: {text}"
    assert value
    if action.default not in (None, "") and name != "embed --delimiter":
        default = action.default
        assert value == (f"{default:g}" if isinstance(default, float) else str(default))
    settings = {option(field.name): field for field in msgspec.structs.fields(Settings)}
    setting = settings.get(action.option_strings[0])
    if setting is not None and name.split(maxsplit=1)[0] in ("serve", "service", "doctor"):
        if setting.default not in (None, ()):
            assert read_settings({setting.name: value}, {}) == Settings()
        if get_origin(setting.type) is Literal:
            assert said.startswith(", ".join(get_args(setting.type)))


def test_what_a_search_goes_by_is_the_model_of_its_index() -> None:
    (text,) = [action.help for name, action in OPTIONS if name == "search --model"]
    assert text
    assert text.endswith("default: the one that made INDEX")


@pytest.mark.parametrize(
    "words", ["bench --seconds x", "embed --dimensions 1.5", "search a b -k ten"]
)
def test_a_number_that_is_none_is_refused_in_words(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"argument -\S+: must be a (whole )?number, not '", said)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_commands_that_are_understood(name: str) -> None:
    found = 0
    for line in _command(name).EXAMPLES.splitlines():
        if match := re.search(r"^  .*?\bembedsvc (.*?)(?: *\)'? .*|>.*)?$", line):
            arguments = shlex.split(match[1], comments=True)
            given = _parser(arguments).parse_args(arguments)
            assert given.command == name
            found += 1
    assert found
