"""What pages say of the code is what the code says."""

import json

import pytest

from tests.conftest import ROOT
from tests.models_table import facts
from tests.pages import PARTS, Part


@pytest.mark.parametrize("part", PARTS, ids=[f"{part.page}:{part.name}" for part in PARTS])
def test_a_part_that_is_made_from_the_code_is_up_to_date(part: Part) -> None:
    assert part.found() == part.make(), "python -m tests.pages writes it"


def test_dimensions_of_the_table_are_those_of_the_true_configs() -> None:
    true = json.loads((ROOT / "tests/reference/real_sizes.json").read_text())
    known = facts()
    compared = 0
    for name, model in true.items():
        config = model["config"]
        if name in known:
            size = config.get("hidden_size") or config.get("n_embd")
            assert known[name].dimensions == size, name
            compared += 1
    assert compared >= 15
