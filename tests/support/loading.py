"""A checkpoint's folder, loaded by way of every file, or refused."""

from pathlib import Path

import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.tokenizer import open_tokenizer


def load(folder: Path) -> np.ndarray:
    """Vectors of a text, by way of every file."""
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    encoder = load_encoder(NumpyOps(cores=1), checkpoint)
    return encoder.encode(open_tokenizer(checkpoint, encoder.rows).encode(["hello world"]))


def refused(folder: Path) -> str:
    """The message with which loading it is refused."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    return str(caught.value)
