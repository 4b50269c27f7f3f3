"""The service's files, and exactly what is run for it, on both kinds of machine."""

import os
import plistlib
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedsvc import cli
from embedsvc.commands import service as command
from embedsvc.commands.arguments import actions, subcommands
from embedsvc.daemon import detect
from embedsvc.daemon.actions import MARKER, Actions, Answer, DryRun
from embedsvc.daemon.launchd import Launchd
from embedsvc.daemon.spec import State
from embedsvc.daemon.systemd import Systemd, unit
from embedsvc.errors import ServiceError
from embedsvc.exits import EXIT_HUNG
from embedsvc.probe import Found
from tests.support.daemon import FakeLaunchd, FakeSystemd, Recorder, job

AGENT = "gui/501/local.embedsvc"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def launchd(home: Path, fake: FakeLaunchd, *, system: bool = False, user: str | None = None):
    machine = Recorder(fake)
    return Launchd(machine, job(home, system=system, user=user), uid=501), machine.commands


def systemd(home: Path, fake: FakeSystemd, *, system: bool = False):
    machine = Recorder(fake)
    return Systemd(machine, job(home, system=system)), machine.commands


def units(home: Path) -> Path:
    return home / ".config/systemd/user"


# --- launchd ---------------------------------------------------------------------------------


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


# --- systemd ---------------------------------------------------------------------------------


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


# --- files -----------------------------------------------------------------------------------


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


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def linux(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, on Linux, and nothing of this environment."""
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(detect.sys, "platform", "linux")
    monkeypatch.chdir(home)
    for name in [name for name in os.environ if name.startswith("EMBEDSVC_")]:
        monkeypatch.delenv(name)
    return home


def install(*options: str, fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> int:
    def answer(words: Sequence[str]) -> Answer:
        return Answer(0, "") if words[0] == "env" else fake(tuple(words))

    monkeypatch.setattr(command, "Actions", lambda: Recorder(answer))
    monkeypatch.setattr(command, "probe", lambda *_: Found("ready", "ready"))
    return cli.main(["service", "install", *options])


def test_settings_given_at_installation_are_kept(
    linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSystemd(units(linux))
    (linux / "models.toml").touch()
    monkeypatch.setenv("EMBEDSVC_API_KEYS", "one two")
    monkeypatch.setenv("EMBEDSVC_PORT", "1234")
    options = ("--port", "8123", "--cache-folder", "vectors")
    assert install(*options, fake=fake, monkeypatch=monkeypatch) == 0
    file = linux / ".config/embedsvc/environment"
    lines = file.read_text().splitlines()
    assert MARKER in lines[0]
    assert set(lines[2:]) >= {
        "EMBEDSVC_PORT=8123",
        f"EMBEDSVC_CACHE_FOLDER={linux}/vectors",
        f"EMBEDSVC_MODELS={linux}/models.toml",
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"\nEnvironmentFile={file}\n" in fake.unit.read_text()


def test_every_option_of_serve_is_one_of_install(
    linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the file that the service is given its settings in."""
    parser = cli._parser(["serve", "service"])
    commands = {name: found for name, found, _ in subcommands(parser)}
    below = {name: found for name, found, _ in subcommands(commands["service"])}
    of_serve, of_install = (
        {option: action.help for action in actions(found) for option in action.option_strings}
        for found in (commands["serve"], below["install"])
    )
    del of_serve["--environment-file"]
    assert {name: of_install.get(name) for name in of_serve} == of_serve
    names = ("--tls-cert", "--tls-key", "--api-keys-file", "--uds")
    given = [word for name in names for word in (name, f"some{name}")]
    fake = FakeSystemd(units(linux))
    assert install(*given, "--max-memory", "8GB", fake=fake, monkeypatch=monkeypatch) == 0
    lines = (linux / ".config/embedsvc/environment").read_text().splitlines()
    for name in names:
        assert f"EMBEDSVC_{name[2:].replace('-', '_').upper()}={linux}/some{name}" in lines
    assert "EMBEDSVC_MAX_MEMORY=8GB" in lines


def test_installing_again_changes_what_is_given_and_keeps_the_rest(
    linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSystemd(units(linux))
    install("--port", "8123", "--backend", "numpy", fake=fake, monkeypatch=monkeypatch)
    file = linux / ".config/embedsvc/environment"
    with file.open("a") as stream:
        stream.write("# mine\nHF_HOME=/models\n")
    install("--port", "8124", fake=fake, monkeypatch=monkeypatch)
    assert file.read_text().splitlines()[2:] == [
        *("EMBEDSVC_PORT=8124", "EMBEDSVC_BACKEND=numpy", "# mine", "HF_HOME=/models"),
    ]


def test_a_wrong_setting_is_refused_before_anything_is_written(
    linux: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeSystemd(units(linux))
    assert install("--port", "99999", fake=fake, monkeypatch=monkeypatch) == 3
    assert "--port=99999: must be at most 65535" in capsys.readouterr().err
    assert list(linux.iterdir()) == []


def test_a_dry_run_prints_everything_and_does_nothing(
    linux: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeSystemd(units(linux))

    class Dry(DryRun):
        def ask(self, *words: str) -> Answer:
            return Answer(0, "") if words[0] == "env" else fake(words)

    monkeypatch.setattr(command, "DryRun", Dry)
    monkeypatch.setenv("HF_TOKEN", "not a setting")
    monkeypatch.setenv("EMBEDSVC_PORT", "8123")
    assert cli.main(["service", "install", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for line in (
        f"write {linux}/.config/embedsvc/environment, mode 0600:",
        "    EMBEDSVC_PORT=8123",
        f"write {linux}/.config/systemd/user/embedsvc.service, mode 0644:",
        "    Restart=on-failure",
        "run systemctl --user daemon-reload",
        "run systemctl --user enable embedsvc.service",
        "run systemctl --user restart embedsvc.service",
    ):
        assert line in said.splitlines()
    assert "not a setting" not in said
    assert list(linux.iterdir()) == []


def test_a_dry_run_does_not_show_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "EMBEDSVC_API_KEYS=s3cret\nHF_TOKEN=s3cret\nEMBEDSVC_MAX_BATCH_TOKENS=512\n"
    DryRun(print).write(tmp_path / "environment", text, 0o600)
    said = capsys.readouterr().out
    assert "s3cret" not in said
    assert "EMBEDSVC_MAX_BATCH_TOKENS=512" in said


def test_a_program_in_a_home_is_not_given_to_a_user_who_cannot_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Recorder(lambda _: Answer(0, ""))
    monkeypatch.setattr(detect.sys, "prefix", "/home/ada/venv")
    with pytest.raises(ServiceError, match=r"cannot read /home/ada/venv.*--user"):
        detect.check_program(machine, job(tmp_path, system=True))
    detect.check_program(machine, job(tmp_path, system=True, user="root"))
    detect.check_program(machine, job(tmp_path))


def test_a_program_that_is_not_installed_is_not_made_a_service(tmp_path: Path) -> None:
    machine = Recorder(lambda _: Answer(1, "ModuleNotFoundError: No module named 'embedsvc'"))
    with pytest.raises(ServiceError, match="embedsvc is not installed for /opt/embedsvc/bin"):
        detect.check_program(machine, job(tmp_path))


def test_launchd_s_services_of_the_machine_never_run_as_root_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(detect.sys, "platform", "darwin")
    monkeypatch.delenv("SUDO_USER", raising=False)
    with pytest.raises(ServiceError, match="say with --user"):
        detect.system_user(None)
    with pytest.raises(ServiceError, match="there is no user nobody-of-this-name"):
        detect.system_user("nobody-of-this-name")
    monkeypatch.setenv("SUDO_USER", "root")
    assert detect.system_user(None) == "root"
