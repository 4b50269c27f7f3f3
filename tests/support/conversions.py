"""Checkpoints that others converted, as they lie in the hub's cache."""

from pathlib import Path
from typing import Any

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint


def cached(tmp_path: Path, repo: str) -> Path:
    """The folder of a repository in the hub's cache."""
    return tmp_path / f"models--{repo.replace('/', '--')}" / "snapshots" / "0"


def opened(folder: Path, **card: Any) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder, **card))
