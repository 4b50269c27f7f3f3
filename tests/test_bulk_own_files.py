"""What a run writes is none of its inputs, by whatever name it is reached."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedsvc.bulk.outputs import OUTPUTS
from embedsvc.bulk.outputs.files import BESIDE, beside
from embedsvc.errors import BulkError
from tests.support.bulk import FakeEmbedder, go, read_jsonl, rows_of


@pytest.fixture(params=[True, False], ids=["--overwrite", "plain"])
def overwrite(request: pytest.FixtureRequest) -> bool:
    return request.param


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("how", ["same", "link", "hard link", "around"])
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, how: str, overwrite: bool) -> None:
    source = output = tmp_path / "a.jsonl"
    source.write_text(rows_of(3))
    if how == "link":
        output = tmp_path / "b.jsonl"
        output.symlink_to(source)
    elif how == "hard link":
        output = tmp_path / "b.jsonl"
        output.hardlink_to(source)
    elif how == "around":
        (tmp_path / "to").symlink_to(tmp_path)
        output = tmp_path / "to" / ".." / tmp_path.name / "to" / "a.jsonl"
    before = contents(tmp_path)
    with pytest.raises(BulkError, match=r"a\.jsonl is an input, and the run would write it: "):
        go(FakeEmbedder(), output, source, overwrite=overwrite)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("ending", OUTPUTS)
@pytest.mark.parametrize("what", BESIDE)
def test_an_input_beside_the_output_that_would_be_replaced_is_refused(
    tmp_path: Path, ending: str, what: str, overwrite: bool
) -> None:
    output = tmp_path / f"out{ending}"
    source = beside(output, what)
    source.write_text(rows_of(3))
    before = contents(tmp_path)
    with pytest.raises(BulkError, match="is an input, and the run would write it"):
        go(FakeEmbedder(), output, source, overwrite=overwrite, format="jsonl")
    assert contents(tmp_path) == before


def test_an_input_that_is_piped_in_is_known_too(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(rows_of(3))
    options = ["--format", "jsonl", "--output", "a.jsonl", "--overwrite", "--url", "http://x/v1"]
    with source.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "embedsvc", "embed", "-", *options],
            stdin=stdin,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stderr) == (
        6,
        "embedsvc: stdin is an input, and the run would write it: a.jsonl\n",
    )
    assert source.read_text() == rows_of(3)


@pytest.mark.parametrize("ending", OUTPUTS)
def test_an_output_in_its_input_folder_is_left_out_and_can_be_gone_on_with(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(300):
        (tmp_path / f"{number:03}.txt").write_text(f"text {number}")
    (tmp_path / "bad.bin").write_bytes(b"\0")
    output = Path(f"out{ending}")
    with pytest.raises(BulkError, match="out of order"):
        go(FakeEmbedder(breaks_after=100), output, Path())
    summary = go(FakeEmbedder(), output, Path())
    assert summary.before.items > 0
    assert (summary.after.rows, summary.after.rejected) == (300, 1)
    again = go(
        FakeEmbedder(), output, Path(), overwrite=True
    )  # what the first left is no input either
    assert (again.after.rows, again.after.rejected) == (300, 1)


def test_what_is_in_the_way_of_an_output_is_said_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(rows_of(3))
    fake = FakeEmbedder()
    for what in ("", *(f".{what}" for what in BESIDE)):
        folder = tmp_path / f"out.npy{what}"
        folder.mkdir()
        with pytest.raises(BulkError, match=rf"{folder} is in the way: it is no file"):
            go(fake, tmp_path / "out.npy", source, overwrite=True)
        folder.rmdir()
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    with pytest.raises(BulkError, match="the name is too long"):
        go(fake, tmp_path / f"{'x' * (most - 10)}.npy", source)
    name = "x" * (most - len("..npy.rejects.jsonl.unfinished"))
    go(FakeEmbedder(), tmp_path / f"{name}.npy", source)
    assert fake.texts == []


def test_what_an_input_lacks_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.jsonl", tmp_path / "b.csv"
    good.write_text(rows_of(3))
    bad.write_text("body\nx\n")
    fake = FakeEmbedder()
    with pytest.raises(BulkError, match=r"b\.csv: no column `text`"):
        go(fake, tmp_path / "out.npy", good, bad)
    assert fake.texts == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.csv"]


def test_names_in_upper_case_are_of_the_same_formats(tmp_path: Path) -> None:
    source = tmp_path / "A.JSONL"
    source.write_text(rows_of(3))
    go(FakeEmbedder(), tmp_path / "OUT.JSONL", source)
    assert len(read_jsonl(tmp_path / "OUT.JSONL")) == 3
