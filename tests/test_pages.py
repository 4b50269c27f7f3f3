"""What pages say of the code is what the code says."""

import json
import re

import pytest

from tests.support.models_table import facts
from tests.support.pages import DOCS, PARTS, Part
from tests.support.project import ROOT


@pytest.mark.parametrize("part", PARTS, ids=[f"{part.page}:{part.name}" for part in PARTS])
def test_a_part_that_is_made_from_the_code_is_up_to_date(part: Part) -> None:
    assert part.found() == part.make(), "python -m tests.support.pages writes it"


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


def test_the_readme_counts_the_models() -> None:
    assert f"| {len(facts())} of them, " in (ROOT / "README.md").read_text()


def test_the_architecture_page_says_where_everything_is() -> None:
    page = (DOCS / "architecture.md").read_text()
    listing = page.partition("## Where things are")[2]
    for path in (ROOT / "embedsvc").iterdir():
        if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py"):
            name = f"{path.name}/" if path.is_dir() else path.name
            assert name in listing, f"{name} is not on the page"
    for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", page):
        places = (ROOT / "embedsvc" / name, ROOT / name)
        inner = list((ROOT / "embedsvc").glob(f"**/{name}"))
        assert inner or any(place.exists() for place in places), f"{name} is not there"
