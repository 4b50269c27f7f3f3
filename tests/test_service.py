"""`embedsvc service`: what is installed, with which settings, and who may read it."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedsvc import cli
from embedsvc.commands import service as command
from embedsvc.commands.arguments import actions, subcommands
from embedsvc.daemon import detect
from embedsvc.daemon.actions import MARKER, Answer, DryRun
from embedsvc.daemon.environment import CARRIED, NOT_READ
from embedsvc.errors import ServiceError
from embedsvc.probe import Found
from tests.support.daemon import FakeSystemd, Recorder, job, units


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def linux(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, on Linux, and nothing of this environment."""
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(detect.sys, "platform", "linux")
    monkeypatch.chdir(home)
    for name in [name for name in os.environ if name.startswith("EMBEDSVC_")]:
        monkeypatch.delenv(name)
    for name in (*CARRIED, *NOT_READ):
        monkeypatch.delenv(name, raising=False)
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
    machine = Recorder(lambda _: Answer(0, ""))
    monkeypatch.setattr(detect.sys, "platform", "darwin")
    monkeypatch.delenv("SUDO_USER", raising=False)
    with pytest.raises(ServiceError, match="say with --user"):
        detect.system_user(machine, None)
    with pytest.raises(ServiceError, match="there is no user nobody-of-this-name"):
        detect.system_user(machine, "nobody-of-this-name")
    monkeypatch.setenv("SUDO_USER", "root")
    assert detect.system_user(machine, None) == "root"
