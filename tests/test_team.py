"""Threads that help a pass which is alone: `kernels/team.c` tries them, built by itself."""

import subprocess
from pathlib import Path

import pytest

from tests.support.c_programs import TEAM, TEAM_CASES, build


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("team") / "team"
    return build(output, "-O2", sources=TEAM)


def test_all_cases_are_named_here(team: Path) -> None:
    assert subprocess.check_output([team], text=True).split() == list(TEAM_CASES)


@pytest.mark.parametrize("case", TEAM_CASES)
def test_the_team(team: Path, case: str) -> None:
    done = subprocess.run([team, case], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
