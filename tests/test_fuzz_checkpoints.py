"""Checkpoints with a change that nobody announced: right vectors, or one line that names a file.

`EMBEDSVC_FUZZ_CASES` is how many are tried; `python -m tests.fuzz_checkpoints` tries thousands.
"""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.fuzz_checkpoints import Fuzz

CASES = int(os.environ.get("EMBEDSVC_FUZZ_CASES", "300"))
AT_ONCE = 30


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    with closing(Fuzz(tmp_path_factory.mktemp("sources"))) as fuzz:
        yield fuzz


@pytest.mark.parametrize("first", range(0, CASES, AT_ONCE))
def test_a_change_gives_right_vectors_or_one_line_that_names_a_file(fuzz: Fuzz, first: int) -> None:
    came = dict(map(fuzz.outcome, range(first, first + AT_ONCE)))
    assert [f"{case}: {found}" for case, found in came.items() if found.startswith("wrong")] == []
    assert len(set(came.values())) > 1  # some are refused, some load


def test_what_ends_the_process_or_breaks_out_is_found_out(
    fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is asked for a checkpoint that is not there: it ends, and another begins."""
    monkeypatch.setattr("tests.fuzz_checkpoints.BACKENDS", ("unheard-of",))
    assert fuzz.outcome(0)[1].startswith("wrong: it ended with 1")
    monkeypatch.undo()
    assert not fuzz.outcome(0)[1].startswith("wrong")
