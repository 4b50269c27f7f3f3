"""What the command says of itself: examples that work, before anything else."""

import re
import shlex

import pytest

from embedsvc.cli import COMMANDS, _command, _parser, main
from embedsvc.commands.service import ACTIONS


@pytest.mark.parametrize("name", ["", *COMMANDS, *(f"service {action}" for action in ACTIONS)])
def test_help_begins_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    usage, examples, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: {f'embedsvc {name}'.strip()} ")
    assert "\n" not in usage
    assert examples.startswith("examples:\n  ")


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
