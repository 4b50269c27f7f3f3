"""The files of a service: whose they are, and who may read them."""

import stat
from pathlib import Path

import pytest

from embedsvc.daemon.actions import MARKER, Actions, DryRun
from embedsvc.errors import ServiceError
from tests.support.daemon import FakeLaunchd, FakeSystemd, launchd, systemd, units


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_somebody_else_s_file_is_neither_overwritten_nor_removed(home: Path) -> None:
    file = units(home) / "embedsvc.service"
    file.parent.mkdir(parents=True)
    file.write_text("[Service]\nExecStart=/bin/true\n")
    service, commands = systemd(home, FakeSystemd(units(home)))
    for act in (service.install, service.uninstall):
        with pytest.raises(ServiceError, match="was not written by embedsvc"):
            act()
    assert file.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert commands == []
    agent, commands = launchd(home, FakeLaunchd("gui/501"))
    agent.file.parent.mkdir(parents=True)
    agent.file.write_text("<plist/>")
    for act in (agent.install, agent.uninstall):
        with pytest.raises(ServiceError, match="was not written by embedsvc"):
            act()
    assert agent.file.read_text() == "<plist/>"
    assert commands == []


def test_a_link_is_not_written_through(home: Path) -> None:
    home.mkdir()
    (home / "link").symlink_to(home / "elsewhere")
    with pytest.raises(ServiceError, match="was not written by embedsvc"):
        Actions().write(home / "link", MARKER)
    assert not (home / "elsewhere").exists()


def test_a_file_of_keys_is_its_user_s_alone(tmp_path: Path) -> None:
    for _ in range(2):
        Actions().write(tmp_path / "environment", f"# {MARKER}\n", 0o600)
        assert stat.S_IMODE((tmp_path / "environment").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["environment"]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=str(tmp_path / "file")):
        Actions().write(tmp_path / "file" / "under", MARKER)


def test_a_dry_run_shows_no_secret_however_it_is_written(tmp_path: Path) -> None:
    said: list[str] = []
    text = (
        "A_KEY = s3cret\nHTTP_PROXY='ada:s3cret@proxy:1'\nExecStart=/opt/python@3.13/bin/python\n"
    )
    DryRun(said.append).write(tmp_path / "new", text + "SystemCallFilter=@system-service\n")
    assert said[0].splitlines()[1:] == [
        "    A_KEY =(not shown)",
        "    HTTP_PROXY='(not shown)@proxy:1'",
        "    ExecStart=/opt/python@3.13/bin/python",
        "    SystemCallFilter=@system-service",
    ]
