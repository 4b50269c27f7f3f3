"""The service as launchd keeps it: its files, and exactly what is run for it."""

import os
import plistlib
from pathlib import Path

import pytest

from embedsvc import cli
from embedsvc.daemon import detect
from embedsvc.daemon.actions import Answer
from embedsvc.daemon.launchd import Launchd
from embedsvc.daemon.spec import State
from embedsvc.errors import ServiceError
from embedsvc.exits import EXIT_HUNG
from tests.support.daemon import FakeLaunchd, Recorder, job, launchd

AGENT = "gui/501/local.embedsvc"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_launch_agent_is_loaded_in_the_domain_of_its_user(home: Path) -> None:
    service, commands = launchd(home, FakeLaunchd("gui/501"))
    assert service.install() == []
    agents = home / "Library/LaunchAgents"
    assert commands == [
        f"launchctl bootstrap gui/501 {agents}/local.embedsvc.rotation.plist",
        f"launchctl enable {AGENT}",
        f"launchctl bootstrap gui/501 {agents}/local.embedsvc.plist",
        f"launchctl kickstart {AGENT}",
    ]
    assert service.state() == State(installed=True, running=True, pid=4711, last_exit=3)


def test_the_launch_agent_says_all_that_launchd_needs(home: Path) -> None:
    service, _ = launchd(home, FakeLaunchd("gui/501"))
    service.install()
    settings = plistlib.loads(service.file.read_bytes())
    log = f"{home}/Library/Logs/embedsvc"
    assert settings == {
        "Label": "local.embedsvc",
        "ProgramArguments": [
            *("/opt/embedsvc/bin/python", "-P", "-m", "embedsvc", "serve"),
            *("--environment-file", f"{home}/.config/embedsvc/environment"),
            *("--log-file", f"{log}/embedsvc.log"),
        ],
        "WorkingDirectory": "/",
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ExitTimeOut": 45,
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": 65536, "Core": 0},
        "HardResourceLimits": {"NumberOfFiles": 65536, "Core": 0},
        "Umask": 0o077,
        "StandardOutPath": f"{log}/launchd.log",
        "StandardErrorPath": f"{log}/launchd.log",
    }
    assert Path(log).is_dir()
    arguments = settings["ProgramArguments"][4:]
    assert cli._parser(arguments).parse_args(arguments).command == "serve"


def test_a_launch_agent_has_newsyslog_rotate_its_log(home: Path) -> None:
    service, _ = launchd(home, FakeLaunchd("gui/501"))
    service.install()
    rotation = plistlib.loads((service.file.parent / "local.embedsvc.rotation.plist").read_bytes())
    rules = home / ".config/embedsvc/newsyslog.conf"
    assert rotation["ProgramArguments"] == ["/usr/sbin/newsyslog", "-r", "-f", str(rules)]
    log = f"{home}/Library/Logs/embedsvc/embedsvc.log"
    assert rules.read_text().splitlines()[-1] == f"{log}  600 7 10240 * NB"


def test_a_launch_daemon_runs_as_a_user_and_is_rotated_by_the_system(home: Path) -> None:
    owner = "root" if os.getuid() == 0 else detect.pwd.getpwuid(os.getuid()).pw_name
    service, commands = launchd(home, FakeLaunchd("system"), system=True, user=owner)
    service.install()
    file = home / "Library/LaunchDaemons/local.embedsvc.plist"
    assert commands == [
        "launchctl enable system/local.embedsvc",
        f"launchctl bootstrap system {file}",
        "launchctl kickstart system/local.embedsvc",
    ]
    assert plistlib.loads(file.read_bytes())["UserName"] == owner
    rules = (home / "etc/newsyslog.d/embedsvc.conf").read_text()
    assert f"embedsvc.log {owner}: 600 7 10240 * NB" in rules


def test_a_job_that_is_still_ending_is_waited_for_before_it_is_loaded_again(home: Path) -> None:
    fake = FakeLaunchd("gui/501", lingers=5)
    service, commands = launchd(home, fake)
    service.install()
    commands.clear()
    service.restart()
    assert commands == [
        f"launchctl bootout {AGENT}",
        f"launchctl enable {AGENT}",
        f"launchctl bootstrap gui/501 {service.file}",
        f"launchctl kickstart {AGENT}",
    ]
    assert fake.running == {AGENT}


def test_a_bootstrap_that_comes_too_early_is_tried_again(home: Path) -> None:
    fake = FakeLaunchd("gui/501")
    service, commands = launchd(home, fake)
    service.install()
    service.stop()
    fake._busy = 3
    commands.clear()
    service.start()
    assert commands.count(f"launchctl bootstrap gui/501 {service.file}") == 4
    assert fake.running == {AGENT}


def test_a_bootstrap_that_never_works_is_an_error(home: Path) -> None:
    service, _ = launchd(home, FakeLaunchd("gui/501", busy=10**6))
    with pytest.raises(ServiceError, match=r"launchd refused .*, with 5: Bootstrap failed"):
        service.install()


def test_a_job_that_does_not_end_is_an_error(home: Path) -> None:
    fake = FakeLaunchd("gui/501", lingers=10**6)
    service, _ = launchd(home, fake)
    service.install()
    with pytest.raises(ServiceError, match=r"local.embedsvc did not end within 55 seconds"):
        service.stop()


def test_where_nobody_is_logged_in_the_error_says_what_to_do(home: Path) -> None:
    service, _ = launchd(home, FakeLaunchd("gui/501", logged_in=False))
    with pytest.raises(ServiceError, match=r"125.*nobody is logged in.*--system"):
        service.install()


def test_stopping_a_job_that_is_not_loaded_does_nothing(home: Path) -> None:
    service, commands = launchd(home, FakeLaunchd("gui/501"))
    service.stop()
    assert commands == []


def test_starting_a_job_that_is_not_installed_is_an_error(home: Path) -> None:
    service, _ = launchd(home, FakeLaunchd("gui/501"))
    with pytest.raises(ServiceError, match="not installed"):
        service.start()


def test_uninstalling_unloads_both_jobs_and_removes_their_files(home: Path) -> None:
    fake = FakeLaunchd("gui/501")
    service, commands = launchd(home, fake)
    service.install()
    commands.clear()
    service.uninstall()
    assert commands == [f"launchctl bootout {AGENT}", f"launchctl bootout {AGENT}.rotation"]
    assert not fake.loaded
    assert [path for path in home.rglob("*") if path.is_file()] == []
    service.uninstall()  # again: nothing to do
    assert len(commands) == 2


def test_launchd_s_logs_are_files(home: Path) -> None:
    service, _ = launchd(home, FakeLaunchd("gui/501"))
    files = [f"{home}/Library/Logs/embedsvc/{name}.log" for name in ("launchd", "embedsvc")]
    assert service.logs(5, follow=False) == ("tail", "-n", "5", *files)
    assert service.logs(5, follow=True) == ("tail", "-n", "5", "-F", *files)


def test_a_home_with_a_space_cannot_be_rotated(tmp_path: Path) -> None:
    service, _ = launchd(tmp_path / "my home", FakeLaunchd("gui/501"))
    with pytest.raises(ServiceError, match=r"newsyslog cannot rotate .*space"):
        service.install()


def test_launchd_says_what_ended_the_run_before(home: Path) -> None:
    told = "x = {\n\tstate = not running\n\tlast exit code = 7: Unknown\n}"
    for text, wanted in (
        (told, f"it last ended with {EXIT_HUNG}: the device"),
        (
            told.replace("exit code = 7: Unknown", "terminating signal = Killed: 9"),
            "killed: Killed",
        ),
        (told.replace("7: Unknown", "(never exited)"), "installed, not running"),
    ):
        machine = Recorder(lambda _, text=text: Answer(0, text))
        assert wanted in Launchd(machine, job(home), uid=501).state().in_words()
