"""Models with a LoRA adapter, against what PEFT makes of the same files.

`tests/reference/adapters.py` made the adapters, and recorded that.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.adapter import CONFIG, WEIGHTS, Adapter
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.adapters import BASE, CASES, FOLDER, recorded
from tests.support.checkpoints import write_json
from tests.support.hidden_states import hidden_states
from tests.support.tiny import CASES as MODELS
from tests.support.tolerance import within

TEXTS = MODELS[BASE].texts()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return MODELS[BASE].write(folder)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """One that a test may change."""
    return Path(shutil.copytree(FOLDER / "plain", tmp_path / "adapter"))


def change(adapter: Path, **config: Any) -> None:
    write_json(adapter / CONFIG, json.loads((adapter / CONFIG).read_text()) | config)


@pytest.mark.parametrize("name", CASES)
def test_hidden_states_are_those_of_peft(ops: Ops, name: str, base: Path) -> None:
    checkpoint = open_checkpoint(Card(id="x", path=base, adapter=str(FOLDER / name)))
    found = hidden_states(ops, checkpoint, TEXTS)
    assert np.abs(found - recorded(name)).max() <= within(1e-5, ops)


def test_every_adapter_changes_what_is_computed(base: Path) -> None:
    plain = hidden_states(NumpyOps(1), open_checkpoint(Card(id="x", path=base)), TEXTS)
    for name in CASES:
        assert np.abs(plain - recorded(name)).max() > 0.1, name


def test_a_model_with_an_adapter_has_a_fingerprint_of_its_own(base: Path, adapter: Path) -> None:
    cards = [
        Card(id="x", path=base),
        Card(id="x", path=base, adapter=str(adapter)),
        Card(id="x", path=base, adapter=str(FOLDER / "whole")),
    ]
    before = [open_checkpoint(card).fingerprint() for card in cards]
    assert len({*before}) == 3
    change(adapter, lora_alpha=9)
    assert open_checkpoint(cards[1]).fingerprint() != before[1]


def vectors(base: Path, adapter: Path) -> NDArray[np.float32]:
    card = Card(id="x", path=base, adapter=str(adapter))
    return load_encoder(NumpyOps(1), open_checkpoint(card)).encode([np.arange(4, 9, dtype="i4")])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"target_parameters": ["a"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"alpha_pattern": {"(a+)+": 2}}, "`alpha_pattern`: `\\(a"),
        ({"alpha_pattern": {"(.|)(.|)(.|)X": 2}}, "`alpha_pattern`: `\\(\\.\\|"),
        ({"alpha_pattern": {".*.*.*": 2}}, "`alpha_pattern`"),
        ({"alpha_pattern": {"x" * 201: 2}}, "`alpha_pattern`"),
        ({"alpha_pattern": {f"x{number}": 2 for number in range(1001)}}, "more than 1000"),
        ({"use_dora": True}, "has no `lora_magnitude_vector`"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    base: Path, adapter: Path, config: dict[str, Any], said: str
) -> None:
    change(adapter, **config)
    with pytest.raises(CheckpointError, match=said):
        vectors(base, adapter)


def test_tensors_that_do_not_go_together_are_refused_by_name(base: Path, adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
    for changed in (
        {name: tensors[name][:, :5].copy()},
        {name: tensors[name][:1].copy()},
        {name: tensors[name][0].copy()},
        {name.replace("layer.0", "layer.7"): tensors[name]},
        {name.replace("self.query", "self.gate"): tensors[name]},
    ):
        save_file(tensors | changed, adapter / WEIGHTS)
        with pytest.raises(CheckpointError, match=r"attention.self.(query|gate)` (has|is)"):
            vectors(base, adapter)
    save_file({key: value for key, value in tensors.items() if key != name}, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match="query` has no `lora_A`"):
        vectors(base, adapter)


def test_the_sizes_of_a_product_are_looked_at_before_it_is_made(base: Path, adapter: Path) -> None:
    name = "base_model.model.encoder.layer.0.attention.self.query"
    huge = {"lora_A": np.ones((1, 10**7), "f4"), "lora_B": np.ones((10**7, 1), "f4")}
    save_file({f"{name}.{part}.weight": value for part, value in huge.items()}, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"query` is for a weight \(10000000, 10000000\)"):
        vectors(base, adapter)
    none = {"lora_A": np.ones((0, 16), "f4"), "lora_B": np.ones((16, 0), "f4")}
    save_file({f"{name}.{part}.weight": value for part, value in none.items()}, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"query` has a `lora_A` of shape \(0, 16\)"):
        vectors(base, adapter)


def test_an_adapter_lists_the_files_that_it_depends_on() -> None:
    files = Adapter("x", FOLDER / "plain").files
    assert [file.name for file in files] == [CONFIG, WEIGHTS]
    assert all(file.is_file() for file in files)
