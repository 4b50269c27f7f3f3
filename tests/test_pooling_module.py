"""How a Pooling module says to pool."""

from pathlib import Path
from typing import Any

import pytest

from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.pooling import BOOLEANS, NAMES, read_pooling
from embedsvc.errors import CheckpointError


@pytest.mark.parametrize(
    ("config", "poolings"),
    [
        ({"pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ("cls", "max")),
        ({"word_embedding_dimension": 8}, ("mean",)),
    ],
)
def test_poolings_are_stated_in_two_ways(config: dict[str, Any], poolings: tuple[str, ...]) -> None:
    assert read_pooling(Files("x", Path("/x")), config) == (poolings, True)
    assert set(BOOLEANS.values()) == set(NAMES.values())


@pytest.mark.parametrize(
    "config", [{}, {"pooling_mode": "other"}, {"pooling_mode": []}, {"pooling_mode_x": True}]
)
def test_what_is_no_pooling_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        read_pooling(Files("x", Path("/x")), config)
