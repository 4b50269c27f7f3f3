"""What a service has of the environment it was installed in, and what its user is warned of."""

import os
import plistlib
import stat
from pathlib import Path

import msgspec
import pytest

from embedsvc import cli
from embedsvc.commands import service as command
from embedsvc.daemon import detect
from embedsvc.daemon.actions import Answer, DryRun
from embedsvc.daemon.environment import (
    CARRIED,
    FOLDERS,
    NOT_READ,
    carried,
    read_environment,
    updated,
)
from embedsvc.daemon.missing import NEEDED
from embedsvc.errors import CardsError
from embedsvc.probe import Found
from embedsvc.settings import Settings, variable
from tests.support.daemon import FakeLaunchd, FakeSystemd, Recorder, units

PLANTED = {
    "HF_TOKEN": "hf_s3cret",
    "HF_HOME": "~/models",
    "HF_ENDPOINT": "https://hub.example",
    "HF_HUB_OFFLINE": "1",
    "HTTPS_PROXY": "http://ada:s3cret@proxy.example:3128",
    "https_proxy": "http://ada:s3cret@proxy.example:3128",
    "no_proxy": "localhost,.example",
    "ALL_PROXY": "socks5://proxy.example",
    "SSL_CERT_FILE": "/etc/ssl/own.pem",
}
"""Variables of a shell that a service is installed from."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and nothing of this environment but what is planted."""
    home = tmp_path / "home"
    home.mkdir()
    own = [name for name in os.environ if name.startswith("EMBEDSVC_")]
    for name in (*CARRIED, *NOT_READ, *own):
        monkeypatch.delenv(name, raising=False)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(command, "probe", lambda *_: Found("ready", "ready"))
    monkeypatch.setattr(detect.sys, "platform", "linux")
    return home


def install(*options: str, fake: FakeSystemd | FakeLaunchd, monkeypatch: pytest.MonkeyPatch) -> int:
    def answer(words: tuple[str, ...]) -> Answer:
        return Answer(0, "") if words[0] == "env" else fake(tuple(words))

    monkeypatch.setattr(command, "Actions", lambda: Recorder(answer))
    return cli.main(["service", "install", *options])


def dry(*options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run where nothing answers but Python."""

    class Alone(DryRun):
        def ask(self, *words: str) -> Answer:
            if words[0] == "env":
                return Answer(0, "")
            return super().ask("/nowhere/of/this/name")

    monkeypatch.setattr(command, "DryRun", Alone)
    assert cli.main(["service", *options, "--dry-run"]) == 0


# --- what it has -------------------------------------------------------------------------------


def test_what_the_server_obeys_is_carried_in_both_spellings(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert install(fake=FakeSystemd(units(home)), monkeypatch=monkeypatch) == 0
    file = home / ".config/embedsvc/environment"
    assert read_environment(file) == PLANTED | {"HF_HOME": f"{home}/models"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    unit = (units(home) / "embedsvc.service").read_text()
    assert "s3cret" not in unit
    assert f"EnvironmentFile={file}" in unit


def test_what_is_set_no_more_is_kept_when_it_is_installed_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSystemd(units(home))
    install(fake=fake, monkeypatch=monkeypatch)
    for name in PLANTED:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN", "hf_newer\n")
    install(fake=fake, monkeypatch=monkeypatch)
    kept = read_environment(home / ".config/embedsvc/environment")
    assert kept == PLANTED | {"HF_HOME": f"{home}/models", "HF_TOKEN": "hf_newer"}


def test_on_a_mac_the_job_reads_the_same_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect.sys, "platform", "darwin")
    fake = FakeLaunchd(f"gui/{os.getuid()}")
    assert install(fake=fake, monkeypatch=monkeypatch) == 0
    file = home / ".config/embedsvc/environment"
    assert read_environment(file)["HF_TOKEN"] == "hf_s3cret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with (home / "Library/LaunchAgents/local.embedsvc.plist").open("rb") as stream:
        job = plistlib.load(stream)
    arguments = job["ProgramArguments"]
    assert arguments[arguments.index("--environment-file") + 1] == str(file)
    assert "EnvironmentVariables" not in job  # anybody may read that file


def test_the_system_s_unit_may_write_where_models_go(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", "/srv/models")
    dry("install", "--system", "--user", "root", monkeypatch=monkeypatch)
    assert "    ReadWritePaths=-/srv/models\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["HF_TOKEN", "no_proxy"])
def test_a_value_that_no_line_can_hold_is_refused_and_no_secret_is_told(name: str) -> None:
    with pytest.raises(CardsError, match=f"{name} cannot be kept") as caught:
        updated("", carried({name: "s3cret\nEMBEDSVC_PORT=1"}))
    assert ("s3cret" in str(caught.value)) == (name != "HF_TOKEN")


# --- what it is told of ------------------------------------------------------------------------


def test_a_dry_run_shows_everything_where_there_is_no_manager_but_no_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dry("install", "--port", "8123", monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    for line in (
        "warning: /nowhere/of/this/name: No such file or directory",
        "warning: no systemd runs for this user; log in as them rather than by su, or say --system",
        "    EMBEDSVC_PORT=8123",
        "    HF_TOKEN=(not shown)",
        "    https_proxy=http://(not shown)@proxy.example:3128",
        "    Restart=on-failure",
        "run systemctl --user restart embedsvc.service",
    ):
        assert said.splitlines().count(line) == 1
    assert "s3cret" not in said
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("action", ["install", "start", "stop", "restart", "uninstall"])
@pytest.mark.parametrize("platform", ["darwin", "linux", "freebsd14"])
def test_a_dry_run_of_any_action_ends_well_on_any_system(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform: str,
    action: str,
) -> None:
    monkeypatch.setattr(detect.sys, "platform", platform)
    monkeypatch.delenv("SUDO_USER", raising=False)
    for options in ([], ["--system"]):
        dry(action, *options, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert ("there is no service manager for freebsd14" in said) == (platform == "freebsd14")
    if action == "install":
        assert ("say with --user who is to run the service" in said) == (platform == "darwin")
        assert "mode 0600" in said
    assert list(home.iterdir()) == []


def test_where_there_is_no_manager_nothing_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = Recorder(lambda words: Answer(0 if words[0] == "env" else 1, "no bus"))
    monkeypatch.setattr(command, "Actions", lambda: fails)
    assert cli.main(["service", "install"]) == 1
    assert "no systemd runs for this user" in capsys.readouterr().err
    assert list(home.iterdir()) == []


def test_what_is_in_the_way_is_a_warning_of_a_dry_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = units(home) / "embedsvc.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    dry("install", "--user", "nobody-of-this-name", "--system", monkeypatch=monkeypatch)
    dry("install", monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert "warning: there is no user nobody-of-this-name" in said
    assert f"warning: {unit} was not written by embedsvc, or cannot be read" in said
    assert unit.read_text() == "[Service]\n"


def test_files_that_nobody_will_make_are_missed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(home / "own.pem"))
    (home / "cards.toml").write_text("[models.m]\nrepo = 7\n")
    options = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--models", "cards.toml")
    (home / "key.pem").touch()
    dry("install", *options, "--cache-folder", "vectors", monkeypatch=monkeypatch)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert f"warning: EMBEDSVC_TLS_CERT: there is no {home}/cert.pem" in told
    assert f"warning: SSL_CERT_FILE: there is no {home}/own.pem" in told
    assert any("cards.toml" in line and "`repo`" in line for line in told)
    assert not any("key.pem" in line or "vectors" in line for line in told)


def test_files_that_are_needed_are_of_variables_that_there_are() -> None:
    settings = {variable(each.name) for each in msgspec.structs.fields(Settings)}
    assert set(NEEDED) <= settings | set(FOLDERS)


@pytest.mark.parametrize("name", NOT_READ)
def test_certificates_of_other_programs_are_pointed_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "/etc/ssl/own.pem")
    said = f"warning: {name} is set, which this server does not read"
    dry("install", monkeypatch=monkeypatch)
    assert said not in capsys.readouterr().out
    monkeypatch.delenv("SSL_CERT_FILE")
    dry("install", monkeypatch=monkeypatch)
    assert said in capsys.readouterr().out


# --- where it may not look ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder",
    ["Documents", "Desktop", "Downloads", "Library/Mobile Documents/x", "Library/CloudStorage/x"],
)
def test_on_a_mac_folders_that_launchd_cannot_read_are_told_before_it_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    kept = home / folder
    for name in ("checkout/.venv", "models/bert"):
        (kept / name).mkdir(parents=True)
    (kept / "cards.toml").write_text(f"[models.m]\npath = '{kept}/models/bert'\n")
    (home / "linked").symlink_to(kept / "cards.toml")
    monkeypatch.setattr(detect.sys, "platform", "darwin")
    monkeypatch.setattr("sys.prefix", str(kept / "checkout/.venv"))
    monkeypatch.setenv("HF_HOME", str(kept / "models"))
    fake = FakeLaunchd(f"gui/{os.getuid()}")
    assert install("--models", "linked", fake=fake, monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if line.startswith("warning: macOS lets no service read")]
    assert lines.index(told) < lines.index(f"settings: {home}/.config/embedsvc/environment")
    for part in (
        str(home / folder.removesuffix("/x")),
        f"its Python ({kept}/checkout/.venv)",
        f"EMBEDSVC_MODELS ({home}/linked)",
        f"HF_HOME ({kept}/models)",
        f"the model `m` ({kept}/models/bert)",
        "Full Disk Access, for /",
    ):
        assert part in told


def test_on_a_mac_the_status_of_a_service_that_does_not_run_tells_of_them_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detect.sys, "platform", "darwin")
    monkeypatch.setenv("HF_HOME", str(home / "Desktop"))
    install(fake=FakeLaunchd(f"gui/{os.getuid()}"), monkeypatch=monkeypatch)
    monkeypatch.delenv("HF_HOME")
    capsys.readouterr()
    assert cli.main(["service", "status"]) == 0
    assert "warning" not in capsys.readouterr().out
    stopped = "x = {\n\tstate = not running\n\tlast exit code = 4\n}"
    monkeypatch.setattr(command, "Actions", lambda: Recorder(lambda _: Answer(0, stopped)))
    assert cli.main(["service", "status"]) == 1
    said = capsys.readouterr().out
    assert "installed, not running; it last ended with 4" in said
    assert f"warning: macOS lets no service read {home}/Desktop" in said


def test_a_made_up_user_is_given_nothing_of_a_home(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", "/home/ada/models")
    said = "warning: the user whom systemd makes up cannot read what is in a home or closed"
    for options, wanted in ((["--system"], True), (["--system", "--user", "root"], False)):
        dry("install", *options, monkeypatch=monkeypatch)
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(said)]
        assert [("HF_HOME (/home/ada/models)" in line) for line in told] == [True] * wanted
