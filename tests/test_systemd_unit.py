"""The service as systemd keeps it: its unit, and exactly what is run for it."""

from pathlib import Path

import pytest

from embedsvc.daemon.actions import Answer
from embedsvc.daemon.spec import State
from embedsvc.daemon.systemd import Systemd, unit
from embedsvc.errors import ServiceError
from embedsvc.exits import EXIT_HUNG
from tests.support.daemon import FakeSystemd, Recorder, job, systemd, units


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_user_s_unit_is_enabled_and_started(home: Path) -> None:
    fake = FakeSystemd(units(home))
    service, commands = systemd(home, fake)
    assert service.install() == []
    assert commands == [
        "systemctl --user daemon-reload",
        "systemctl --user enable embedsvc.service",
        "systemctl --user restart embedsvc.service",
    ]
    assert service.state() == State(installed=True, running=True, pid=4711)
    assert service.logs(7, follow=True) == (
        *("journalctl", "--no-pager", "--user-unit=embedsvc.service", "--lines=7", "--follow"),
    )


def test_whoever_does_not_linger_is_told(home: Path) -> None:
    service, _ = systemd(home, FakeSystemd(units(home), lingers=False))
    assert "loginctl enable-linger" in service.install()[0]


def test_the_system_s_unit_is_the_system_s(home: Path) -> None:
    folder = home / "etc/systemd/system"
    service, commands = systemd(home, FakeSystemd(folder, lingers=False), system=True)
    assert service.install() == []
    assert commands == [
        "systemctl daemon-reload",
        "systemctl enable embedsvc.service",
        "systemctl restart embedsvc.service",
    ]
    assert service.file == folder / "embedsvc.service"
    assert service.logs(7, follow=False)[2:] == ("--unit=embedsvc.service", "--lines=7")


def test_uninstalling_stops_disables_and_removes_the_unit(home: Path) -> None:
    fake = FakeSystemd(units(home))
    service, commands = systemd(home, fake)
    service.install()
    commands.clear()
    service.uninstall()
    assert commands == [
        "systemctl --user disable --now embedsvc.service",
        "systemctl --user daemon-reload",
        "systemctl --user reset-failed embedsvc.service",
    ]
    assert not fake.running
    assert not fake.loaded
    assert not service.state().installed
    service.uninstall()  # again: nothing to do
    assert len(commands) == 3


def test_a_unit_that_cannot_start_says_what_it_ended_with(home: Path) -> None:
    service, _ = systemd(home, FakeSystemd(units(home), exit_code=4))
    with pytest.raises(ServiceError, match=r"Job failed(.|\n)*with 4: a model cannot be loaded"):
        service.install()


def shown(home: Path, **properties: str | int) -> State:
    """What is made of properties that `systemctl show` prints."""
    lines = [f"{name}={value}" for name, value in properties.items()]
    machine = Recorder(lambda _: Answer(0, "\n".join(["LoadState=loaded", *lines])))
    return Systemd(machine, job(home)).state()


def test_a_service_that_hung_says_so_and_one_that_was_killed_is_no_exit_code(home: Path) -> None:
    ended = {"ActiveState": "activating", "MainPID": 0, "ExecMainCode": 1}
    said = shown(home, **ended, ExecMainStatus=EXIT_HUNG, NRestarts=2).in_words()
    assert "started again 2 times" in said
    assert f"it last ended with {EXIT_HUNG}: the device or event loop hung" in said
    killed = {"ActiveState": "failed", "MainPID": 0, "ExecMainCode": 2, "ExecMainStatus": 6}
    assert shown(home, **killed).in_words() == "installed, not running; it was last killed: SIGABRT"
    runs = {"ActiveState": "active", "MainPID": 7, "ExecMainCode": 0, "ExecMainStatus": 0}
    assert shown(home, **runs, NRestarts=0).in_words() == "running, pid 7"
    once = "running, pid 7; started again once, `embedsvc service logs` says why"
    assert shown(home, **runs, NRestarts=1).in_words() == once


def test_without_a_systemd_of_the_user_the_error_says_what_to_do(home: Path) -> None:
    machine = Recorder(lambda _: Answer(1, "Failed to connect to bus: No medium found"))
    with pytest.raises(ServiceError, match=r"no systemd runs for this user.*--system"):
        Systemd(machine, job(home)).install()
    assert machine.commands == []


def test_settings_that_no_restart_cures_are_not_tried_again(home: Path) -> None:
    assert "\nRestartPreventExitStatus=2 3 4\n" in unit(job(home))


def test_a_low_port_is_the_only_privilege_that_is_given(home: Path) -> None:
    low, high = (unit(job(home, system=True, port=port)) for port in (443, 8000))
    assert "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n" in low
    assert "\nAmbientCapabilities=\n" in high
    assert "\nCapabilityBoundingSet=\n" in high


def test_the_system_s_unit_runs_as_the_user_named_or_one_made_up(home: Path) -> None:
    named, made_up = (unit(job(home, system=True, user=user)) for user in ("ada", None))
    assert "\nUser=ada\nProtectHome=read-only\n" in named
    assert "\nDynamicUser=yes\nProtectHome=yes\n" in made_up
