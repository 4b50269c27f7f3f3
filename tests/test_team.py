"""Threads that help a pass which is alone: `kernels/team.c` tries them, built by itself."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.programs import program

NATIVE = ROOT / "embedsvc/ops/native"
CASES = (
    "every_part_is_done_once",
    "a_pass_alone_has_all_helpers",
    "helpers_come_back_to_the_pass_that_had_them",
    "helpers_come_to_a_pass_that_never_had_them",
    "passes_of_many_threads_do_their_own_parts",
    "a_part_may_have_parts",
    "more_helpers_may_be_asked_for_and_fewer_are_as_many",
    "a_forked_child_has_no_helpers_and_all_parts_are_done",
)


def built(folder: Path, *flags: str) -> Path:
    """The program that tries the team."""
    sources = [ROOT / "tests/kernels/team.c", NATIVE / "team.c"]
    command = [program("cc"), "-std=gnu11", "-O2", "-g", "-pthread", *flags, f"-I{NATIVE}"]
    done = subprocess.run(
        [*command, *sources, "-o", folder / "team"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "team"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("team"))


def test_all_cases_are_named_here(team: Path) -> None:
    assert subprocess.check_output([team], text=True).split() == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_the_team(team: Path, case: str) -> None:
    done = subprocess.run([team, case], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
