"""Runs one converter to MLX on many checkpoints, in a process of its own.

    python extras/run_converter.py PACKAGE JOBS.json

`PACKAGE` is mlx_embeddings or mlx_lm, as it is found first on sys.path. Beside each checkpoint that
it converts, it leaves a file of what the package makes of the result: hidden states of each text
and, where it has layers after pooling, vectors.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np


def main(package: str, jobs_file: Path) -> None:
    asked = json.loads(jobs_file.read_text(encoding="utf-8"))
    convert = converter(package)
    for job in asked["jobs"]:
        convert(job["source"], mlx_path=job["out"], **job["options"])
        run = model(package, Path(job["out"]))
        outputs: dict[str, mx.array] = {}
        for i, text in enumerate(asked["texts"]):
            for name, value in run(mx.array([text])).items():
                outputs[f"{name}{i}"] = value[0].astype(mx.float32)
        np.savez(f"{job['out']}.npz", **{name: np.array(value) for name, value in outputs.items()})


def converter(package: str) -> Callable[..., None]:
    """The package's function of that name. mlx-embeddings has had it in a module of its own since
    0.1.0."""
    if package == "mlx_lm":
        return import_module("mlx_lm.convert").convert
    utils = import_module("mlx_embeddings.utils")
    return getattr(utils, "convert", None) or import_module("mlx_embeddings.convert").convert


def model(package: str, folder: Path) -> Callable[[mx.array], dict[str, mx.array]]:
    """What the package computes of ids (1, L) with a checkpoint."""
    if package == "mlx_lm":
        decoder = import_module("mlx_lm.utils").load_model(folder)[0].model
        return lambda ids: {"hidden": decoder(ids)}
    loaded: Any = import_module("mlx_embeddings.utils").load_model(folder, path_to_repo=str(folder))

    def run(ids: mx.array) -> dict[str, mx.array]:
        said = loaded(ids, attention_mask=mx.ones(ids.shape, mx.int32))
        return {"hidden": said.last_hidden_state, "vector": said.text_embeds}

    return run


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
