"""The unit as systemd itself sees it, and the service kept by a systemd of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedsvc.daemon.environment import updated
from embedsvc.daemon.systemd import UNIT, unit
from embedsvc.probe import Place, probe
from tests.support.daemon import ENVIRONMENT, job
from tests.support.programs import program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has systemd")


@pytest.fixture
def analyze() -> str:
    """The path of systemd-analyze."""
    return program("systemd-analyze")


@pytest.mark.parametrize(
    ("system", "user"),
    [(False, None), (True, None), (True, "root")],
    ids=["user", "made up", "named"],
)
def test_systemd_finds_no_fault_with_the_unit(
    tmp_path: Path, analyze: str, system: bool, user: str | None
) -> None:
    writes = (Path("/srv/models"), Path("/srv/my 100% models"))
    text = unit(job(tmp_path, system=system, user=user, port=443, writes=writes))
    file = tmp_path / UNIT
    file.write_text(text.replace("/opt/embedsvc/bin/python", sys.executable))
    whose = "--system" if system else "--user"
    done = subprocess.run(
        [analyze, "verify", whose, "--man=no", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    about = [line for line in done.stderr.splitlines() if UNIT in line]
    assert (done.returncode, about) == (0, [])


def test_systemd_finds_a_fault_where_there_is_one(tmp_path: Path, analyze: str) -> None:
    file = tmp_path / UNIT
    file.write_text(unit(job(tmp_path)).replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(file)], capture_output=True, text=True
    )
    assert "'NoNewPrivilege'" in done.stderr


def test_systemd_thinks_the_system_s_unit_well_confined(tmp_path: Path, analyze: str) -> None:
    file = tmp_path / UNIT
    file.write_text(unit(job(tmp_path, system=True)))
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=25", "--no-pager", str(file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


# --- a systemd of its own ----------------------------------------------------------------------

OWN_MANAGER = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mkdir /sys/fs/cgroup/$CGROUP
echo $$ >/sys/fs/cgroup/$CGROUP/cgroup.procs
exec /lib/systemd/systemd --user --log-target=null
"""
"""A user's manager with a /run and a cgroup of its own; nobody else's is touched."""


class OwnSystemd:
    """Runs commands where a systemd of this test's own is the user's."""

    def __init__(self, pid: int, home: Path) -> None:
        self.home = home
        self._enter = ("nsenter", "--mount", f"--target={pid}", "env", *_environment(home))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._enter, *command], capture_output=True, text=True, cwd=self.home, timeout=200
        )

    def show(self, name: str) -> str:
        """A property of the unit."""
        command = ("systemctl", "--user", "show", "--value", f"--property={name}", UNIT)
        return self.run(*command).stdout.strip()

    def service(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "embedsvc", "service", *arguments)


def _environment(home: Path) -> tuple[str, ...]:
    return "-uXDG_CONFIG_HOME", f"HOME={home}", f"XDG_RUNTIME_DIR={home}/run"


@pytest.fixture
def own_systemd() -> Iterator[OwnSystemd]:
    program("systemd-analyze")
    if os.getuid():
        pytest.skip("a systemd of its own needs root")
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a systemd of its own needs a mount namespace: {tried.stderr}")
    home = Path(tempfile.mkdtemp(prefix="embedsvc-"))  # short: a socket's path is
    (home / "run").mkdir(mode=0o700)
    cgroup = home.name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(home / "ready"))
        ready.settimeout(20)
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "env", *_environment(home)),
                *(f"NOTIFY_SOCKET={home}/ready", f"CGROUP={cgroup}", "sh", "-c", OWN_MANAGER),
            ]
        )
        try:
            while b"READY=1" not in ready.recv(4096):
                pass
            yield OwnSystemd(process.pid, home)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(100)
            shutil.rmtree(home)
            for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                for folder, _, _ in os.walk(Path(mount, cgroup), topdown=False):
                    Path(folder).rmdir()


def test_systemd_reads_the_environment_file_as_we_do(own_systemd: OwnSystemd) -> None:
    file = own_systemd.home / "environment"
    file.write_text(updated("# comment\n", ENVIRONMENT))
    show = ("systemd-run", "--user", "--wait", "--pipe", "--quiet", "-p", f"EnvironmentFile={file}")
    done = own_systemd.run(*show, "env", "-0")
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert {name: found.get(name) for name in ENVIRONMENT} == ENVIRONMENT


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_service_is_installed_kept_and_removed(own_systemd: OwnSystemd, port: int) -> None:
    installed = own_systemd.service("install", "--port", str(port), "--backend", "numpy")
    assert installed.returncode == 0, installed.stderr
    assert probe(Place("127.0.0.1", port)).who == "ready"

    # Killed, it comes back by itself.
    first = own_systemd.show("MainPID")
    os.kill(int(first), signal.SIGKILL)
    pid = f"systemctl --user show --value --property=MainPID {UNIT}"
    active = f"systemctl --user is-active -q {UNIT}"
    changed = f'case "$({pid})" in 0|{first}) false;; *) {active};; esac'
    own_systemd.run("sh", "-c", f"until {changed}; do sleep 0.2; done")
    assert probe(Place("127.0.0.1", port)).who == "ready"

    # Stopped, it ends well and stays away.
    assert own_systemd.service("stop").returncode == 0
    assert own_systemd.show("Result") == "success"
    assert own_systemd.service("status").returncode == 1

    assert own_systemd.service("uninstall").returncode == 0
    assert own_systemd.show("LoadState") == "not-found"
    files = [path for path in (own_systemd.home / ".config").rglob("*") if path.is_file()]
    assert files == [own_systemd.home / ".config/embedsvc/environment"]


def test_a_wrong_setting_is_not_tried_again_and_again(own_systemd: OwnSystemd, port: int) -> None:
    assert own_systemd.service("install", "--port", str(port)).returncode == 0
    assert own_systemd.service("stop").returncode == 0
    with (own_systemd.home / ".config/embedsvc/environment").open("a") as stream:
        stream.write("EMBEDSVC_BACKEND=abacus\n")
    assert own_systemd.run("systemctl", "--user", "start", UNIT).returncode == 1
    assert own_systemd.show("ExecMainStatus") == "3"
    assert own_systemd.show("ActiveState") == "failed"
    assert own_systemd.show("NRestarts") == "0"
    said = own_systemd.service("start")
    assert (said.returncode, "EMBEDSVC_BACKEND=abacus" in said.stderr) == (3, True)
