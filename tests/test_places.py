"""Places that a service may not read: by where they lie, and by who may read them."""

import doctest
from pathlib import Path

import pytest

from embedsvc.daemon import environment, places
from embedsvc.daemon.places import Place, kept_by_macos, open_to_all


@pytest.mark.parametrize("module", [places, environment], ids=lambda module: module.__name__)
def test_the_examples_are_right(module) -> None:
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_external_volumes_are_kept_each_by_itself() -> None:
    found = [Place("a", Path("/Volumes/Disk/models")), Place("b", Path("/Volumes/Other"))]
    found += [Place("c", Path("/Volumes")), Place("d", Path("/Users/ada/models"))]
    found.append(Place("e", Path("/Users/ada/Documents of mine")))
    told = kept_by_macos(found, Path("/Users/ada"), Path("/opt/python"))
    assert [line.split(",")[0] for line in told] == [
        "macOS lets no service read /Volumes/Disk",
        "macOS lets no service read /Volumes/Other",
    ]
    assert "there is a (/Volumes/Disk/models)" in told[0]
    assert told[0].endswith("for /opt/python")


def test_who_owns_a_folder_alone_keeps_all_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    file = folder / "keys"
    file.write_text("x")
    file.chmod(0o644)
    closed_above = not open_to_all(tmp_path)  # the test's own folder may be closed
    assert open_to_all(file) != closed_above
    assert open_to_all(folder / "not" / "there") != closed_above
    file.chmod(0o600)
    assert not open_to_all(file)
    folder.chmod(0o700)
    assert not open_to_all(folder / "not" / "there")
    assert not open_to_all(Path("/home/ada/x"))
    assert not open_to_all(Path("/run/user/1000"))
