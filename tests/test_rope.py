"""How fast the heads of decoders turn, against what transformers makes of the same objects.

`tests/reference/architectures.py` made the recordings.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embedsvc.inference.models.rope import SLOWED, Rope, plan_rope
from tests.support.ropes import STRETCHED

RECORDED = Path(__file__).parent / "reference" / "architectures" / "stretched.npz"


@pytest.mark.parametrize("name", STRETCHED)
def test_elements_turn_as_transformers_turns_them(name: str) -> None:
    size, positions, stated = STRETCHED[name]
    plan = plan_rope(1.0, positions, msgspec.convert(stated, Rope))
    turns, scale = SLOWED[plan.rope.kind](plan, size)
    with np.load(RECORDED, allow_pickle=False) as recorded:
        *expected, expected_scale = recorded[name]
    assert turns.dtype == np.float32
    assert np.allclose(turns, expected, rtol=4e-7, atol=0)
    assert scale == pytest.approx(expected_scale, rel=1e-12)


def test_a_table_has_cosines_and_sines_of_each_position_times_the_scale() -> None:
    size, positions, stated = STRETCHED["yarn by its positions"]
    plan = plan_rope(1.0, positions, msgspec.convert(stated, Rope))
    table = plan.table(size, 40)
    turns, scale = SLOWED["yarn"](plan, size)
    angles = 39 * turns.astype(np.float64)
    assert table.shape == (40, size)
    expected = scale * np.concatenate([np.cos(angles), np.sin(angles)])
    assert np.abs(table[-1] - expected).max() < 1e-5


def test_the_first_object_that_is_stated_counts_and_the_base_beside_it() -> None:
    old, new = Rope(type="linear", factor=2.0), Rope(rope_theta=7.0)
    assert plan_rope(5.0, 64, None, None).theta == 5.0
    assert plan_rope(5.0, 64, None, new).theta == 7.0
    both = plan_rope(5.0, 64, old, new)
    assert (both.theta, both.rope.kind) == (5.0, "linear")


def test_the_trained_length_is_the_files_else_the_objects_else_all_positions() -> None:
    rope = Rope(rope_type="yarn", factor=2.0, original_max_position_embeddings=16)
    assert plan_rope(5.0, 64, rope, trained=8).trained == 8
    assert plan_rope(5.0, 64, rope).trained == 16
    assert plan_rope(5.0, 64).trained == 64


def test_a_model_whose_queries_grow_takes_texts_of_the_trained_length() -> None:
    rope = Rope(rope_type="yarn", original_max_position_embeddings=16, llama_4_scaling_beta=0.1)
    assert plan_rope(5.0, 64, rope).longest == 16
    assert plan_rope(5.0, 64, Rope()).longest == 64


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"rope_type": "longrope"}, "'longrope'"),
        ({"type": "linear"}, "`factor` is missing"),
        ({"type": "default", "partial_rotary_factor": 0.5}, "`partial_rotary_factor` of 0.5"),
        (
            {"type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 4},
            "`high_freq_factor` must be greater",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(stated: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(stated, Rope)


def test_types_that_an_architecture_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="`rope_type` of linear is not supported"):
        plan_rope(5.0, 64, Rope(type="linear", factor=2.0)).check("default")
    with pytest.raises(ValueError, match="`rope_theta` of 1 is too small"):
        plan_rope(1.0, 64, Rope(type="yarn", factor=2.0)).check("yarn")
