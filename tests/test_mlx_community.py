"""The most used conversions of mlx-community: each loads by the two lines of docs/models.md."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.conversions import cached
from tests.support.mlx_community import CONVERSIONS, Conversion
from tests.support.project import ROOT

SHIPPED = read_cards(ROOT / "models.toml")


def card_of(conversion: Conversion, tmp_path: Path) -> Card:
    file = tmp_path / "models.toml"
    file.write_text(conversion.lines())
    return read_cards(file).by_id[conversion.name]


def test_there_are_at_least_twenty() -> None:
    assert len({each.name for each in CONVERSIONS}) == len(CONVERSIONS) >= 20


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda each: each.name)
def test_a_conversion_loads_by_its_card_and_gives_the_vectors_of_its_weights(
    tmp_path: Path, conversion: Conversion
) -> None:
    folder = cached(tmp_path, f"mlx-community/{conversion.name}")
    conversion.write(folder, tmp_path / "plain")
    card = card_of(conversion, tmp_path)
    # As if it was downloaded; the tiny model has a limit of its own.
    here = msgspec.structs.replace(card, path=folder, max_tokens=None)
    checkpoint = open_checkpoint(here)
    assert checkpoint.pooling == (conversion.pooling,)
    assert checkpoint.normalize
    texts = conversion.case().texts()[1:6:2]
    plain = open_checkpoint(Card(id="plain", path=tmp_path / "plain"))
    expected = load_encoder(NumpyOps(), plain).encode(texts)
    found = load_encoder(NumpyOps(), checkpoint).encode(texts)
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize(
    "conversion", [each for each in CONVERSIONS if each.like], ids=lambda each: each.name
)
def test_a_conversion_is_used_as_the_original_is(tmp_path: Path, conversion: Conversion) -> None:
    card, original = card_of(conversion, tmp_path), SHIPPED.by_id[conversion.like]
    assert len(conversion.lines().splitlines()) == 3  # the name, and two lines
    for name in ("prompts", "dimensions", "normalize", "plain_tokens", "dtype", "layer_norm"):
        assert getattr(card, name) == getattr(original, name), name


def test_how_a_conversion_pools_is_known_without_a_card(tmp_path: Path) -> None:
    """So a client may name it where the server was started with `--allow-ad-hoc`."""
    for conversion in CONVERSIONS[:-1]:
        folder = cached(tmp_path, f"mlx-community/{conversion.name}")
        conversion.write(folder, tmp_path / conversion.name)
        checkpoint = open_checkpoint(Card(id=conversion.name, path=folder))
        assert checkpoint.pooling == (conversion.pooling,)
