"""Completion, as the shells do it that are here: bash everywhere, zsh and fish in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedsvc.cli import COMMANDS, main
from tests.support.programs import program

CASES = [
    ("serv", {"serve", "service"}),
    ("serve --max-w", {"--max-waiting-tokens"}),
    ("embed --dtype fl", {"float16", "float32"}),
    ("service ins", {"install"}),
    ("service install --dr", {"--dry-run", "--drain-seconds"}),
    ("completion ", {"bash", "zsh", "fish"}),
    ("serve --backend n", {"native", "numpy"}),
    ("verify min", {"minilm-one", "minilm-two"}),
    ("similarity --model ot", {"other"}),
    ("load --url x minilm-t", {"minilm-two"}),
]
REPLY = """
source {file}; COMP_WORDS=({words}); COMP_CWORD={at}; _embedsvc
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
SHELLS = {
    "bash": ["bash", "--norc", "-c", REPLY],
    "zsh": ["zsh", "-f", "-c", "autoload -Uz compinit; compinit -D; setopt ksharrays" + REPLY],
    "fish": ["fish", "-N", "-c", "source {file}; complete -C '{line}'"],
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("typed", "expected"), CASES, ids=[typed for typed, _ in CASES])
def test_a_shell_completes(
    shell: str,
    typed: str,
    expected: set[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program(shell)
    assert main(["completion", shell]) == 0
    cards = [f"[models.{name}]\npath = 'x'\n" for name in ("minilm-one", "minilm-two", "other")]
    (tmp_path / "models.toml").write_text("".join(cards))
    file = tmp_path / "script"
    file.write_text(capsys.readouterr().out)
    line = f"embedsvc {typed}"
    words = line.split(" ")
    *command, code = SHELLS[shell]
    quoted = " ".join(f"'{word}'" for word in words)
    code = code.format(file=file, words=quoted, at=len(words) - 1, line=line)
    done = subprocess.run(
        [*command, code],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert not done.stderr
    found = {said.split("\t")[0] for said in done.stdout.splitlines()}
    # zsh leaves it to its own completion to drop what does not begin as typed.
    assert {word for word in found if word.startswith(words[-1])} - {"-h", "--help"} == expected


def test_every_command_is_known_to_every_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert all(f" {name}" in script for name in COMMANDS)


def test_another_shell_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
