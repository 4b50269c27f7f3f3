"""The Makefile hands on what it was told, and nothing that merely lies about."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import program
from tests.support.project import ROOT

KERNELS = "embedsvc/inference/ops/native/kernels.so"
SAYS = """#!/bin/sh
echo "$(basename "$0")" "$@"
echo "EMBEDSVC_PORT=$EMBEDSVC_PORT HOST=$HOST PORT=$PORT ARGS=$ARGS"
"""
SERVES = """#!/bin/sh
echo "pytest" "$@"
exec make --no-print-directory serve PORT=0
"""
"""Tests that start the server as people do."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One whose environment is set up, of programs that say what they are given."""
    program("make")
    for name in ("Makefile", "pyproject.toml", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, script in (("embedsvc", SAYS), ("pytest", SERVES)):
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    for name in ("pyvenv.cfg", ".runtime", ".dev"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


def make(checkout: Path, *arguments: str, **environ: str) -> list[str]:
    """What it prints, in an environment that has nothing of a make around this test."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=checkout,
        env=plain | environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_service_s_own_variables_hold_and_stray_ones_do_not(checkout: Path) -> None:
    stray = {"HOST": "x86_64-conda-linux-gnu", "PORT": "1", "ARGS": "--nonsense"}
    said, seen = make(checkout, "serve", EMBEDSVC_PORT="9580", **stray)
    assert said == "embedsvc serve"
    assert seen.startswith("EMBEDSVC_PORT=9580 ")


def test_what_is_said_to_make_is_handed_on(checkout: Path) -> None:
    assert make(checkout, "serve", "PORT=9000")[0] == "embedsvc serve --port 9000"
    every = ("HOST=::1", "PORT=0", "ARGS=--backend numpy")
    assert (
        make(checkout, "serve", *every)[0] == "embedsvc serve --host ::1 --port 0 --backend numpy"
    )


def test_clean_leaves_what_came_from_git(checkout: Path) -> None:
    before = {path for path in checkout.rglob("*") if ".venv" not in path.parts}
    for made in ("dist/a.whl", ".pytest_cache/x", "embedsvc/__pycache__/a.pyc", KERNELS):
        (checkout / made).parent.mkdir(parents=True, exist_ok=True)
        (checkout / made).touch()
    (checkout / "tests").mkdir()
    make(checkout, "clean")
    left = {path for path in checkout.rglob("*") if path.is_file()}
    assert left == {path for path in before if path.is_file()}


def test_arguments_for_tests_do_not_reach_the_server_that_they_start(checkout: Path) -> None:
    _, tests, server, seen = make(checkout, "test", "ARGS=-k tokenizer -x", "PORT=7", "HOST=a")
    assert tests == "pytest -k tokenizer -x"
    assert server == "embedsvc serve --port 0"
    assert seen == "EMBEDSVC_PORT= HOST= PORT= ARGS="


@pytest.mark.parametrize("named", ["python3.13", "python3.11", None])
def test_the_first_python_that_will_do_is_found(
    checkout: Path, tmp_path: Path, named: str | None
) -> None:
    """Apple's python3 is 3.9, and Homebrew's may have no other name than their version's."""
    shutil.rmtree(checkout / ".venv")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("make", "sh", "rm", "echo"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    scripts = {"python3": "exit 1", named: '[ "$1" = -c ] || echo "$0 $*"; exit 0'}
    for name, script in scripts.items():
        if name is not None:
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
    done = subprocess.run(
        [programs / "make", "--no-print-directory", ".venv/pyvenv.cfg"],
        cwd=checkout,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if named is None:
        assert (done.returncode, "needs Python 3.11" in done.stdout) == (2, True)
    else:
        assert f"{programs / named} -m venv --clear .venv" in done.stdout
