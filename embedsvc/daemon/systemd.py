"""Linux: a unit of the user's own systemd, or of the system's."""

import signal
from pathlib import Path

from embedsvc.daemon.actions import MARKER, Actions, ours
from embedsvc.daemon.spec import DESCRIPTION, HOPELESS, NAME, ServiceSpec, State
from embedsvc.errors import ServiceError

UNIT = f"{NAME}.service"
PRIVILEGED_PORTS = 1024
QUERY = ("LoadState", "ActiveState", "MainPID", "ExecMainCode", "ExecMainStatus", "NRestarts")
EXITED = "1"
"""`ExecMainCode` where the status is an exit code. Elsewhere the status is the number of a
signal."""


class Systemd:
    """The unit, through `systemctl`."""

    name = "systemd"

    def __init__(self, actions: Actions, spec: ServiceSpec) -> None:
        self._actions = actions
        self._spec = spec
        self._systemctl = ("systemctl",) if spec.system else ("systemctl", "--user")
        folder = spec.root / "etc" if spec.system else spec.home / ".config"
        self.file: Path = folder / "systemd" / ("system" if spec.system else "user") / UNIT

    def check(self) -> None:
        """Raise `ServiceError` if no systemd can be had, before anything is written."""
        answer = self._actions.ask(*self._systemctl, "show-environment")
        if answer.status:
            whose = "this machine" if self._spec.system else "this user"
            hint = "; log in as them rather than by su, or say --system"
            hint = "" if self._spec.system else hint
            said = f" ({answer.text})" if answer.text else ""
            self._actions.refuse(f"no systemd runs for {whose}{hint}{said}")

    def install(self) -> list[str]:
        """Write, enable and start the unit. Returns notes for the user who installs it."""
        self.check()
        self._actions.write(self.file, unit(self._spec))
        self._do("daemon-reload")
        self._do("enable", UNIT)
        self.restart()
        lingers = ("loginctl", "show-user", "--value", "--property=Linger")
        if self._spec.system or self._actions.ask(*lingers).text == "yes":
            return []
        return ["it runs while you are logged in; `loginctl enable-linger` has it run from boot on"]

    def uninstall(self) -> None:
        """Stop, disable and remove the unit."""
        if not ours(self.file):
            self._actions.remove(self.file)  # raises if the file is not ours
            return
        self.check()
        self._do("disable", "--now", UNIT)
        self._actions.remove(self.file)
        self._do("daemon-reload")
        self._do("reset-failed", UNIT, allowed=(0, 1))  # 1: it had not failed

    def start(self) -> None:
        self._start("start")

    def stop(self) -> None:
        self._do("stop", UNIT)

    def restart(self) -> None:
        self._start("restart")

    def state(self) -> State:
        shown = self._actions.ask(*self._systemctl, "show", UNIT, f"--property={','.join(QUERY)}")
        found = dict(line.split("=", 1) for line in shown.text.splitlines() if "=" in line)
        if found.get("LoadState") != "loaded":
            return State(installed=self.file.exists())
        running = found["ActiveState"] in ("active", "reloading")
        restarts = int(found.get("NRestarts", 0))
        if running:
            return State(True, running, int(found["MainPID"]), restarts=restarts)
        status = int(found["ExecMainStatus"])
        if found.get("ExecMainCode", EXITED) in ("0", EXITED):
            return State(True, last_exit=status, restarts=restarts)
        return State(True, last_signal=_signal(status), restarts=restarts)

    def logs(self, lines: int, *, follow: bool) -> tuple[str, ...]:
        """The command that prints the logs."""
        which = "--unit" if self._spec.system else "--user-unit"
        command = ("journalctl", "--no-pager", f"{which}={UNIT}", f"--lines={lines}")
        return (*command, "--follow") if follow else command

    def _start(self, command: str) -> None:
        """Start or restart it, and wait until its models are loaded or it has given up."""
        try:
            self._do(command, UNIT)
        except ServiceError as error:
            raise ServiceError(
                f"{error}\nembedsvc: {self.state().in_words()}; `embedsvc service logs` says more"
            ) from None

    def _do(self, *command: str, allowed: tuple[int, ...] = (0,)) -> None:
        self._actions.do(*self._systemctl, *command, allowed=allowed)


def unit(spec: ServiceSpec) -> str:
    """The text of the unit file."""
    sections = [
        f"# {MARKER}; what it writes over when it is run again.\n[Unit]",
        f"Description={DESCRIPTION}",
        *(_ORDER if spec.system else ()),
        "# Tried again for as long as it takes, 5 seconds apart.",
        "StartLimitIntervalSec=0",
        "\n[Service]",
        "# It says itself when its models are loaded, which may take a download.",
        "Type=notify\nNotifyAccess=main\nTimeoutStartSec=1h",
        f"ExecStart={' '.join(_argument(word) for word in spec.command)}",
        "ExecReload=kill -HUP $MAINPID",
        f"EnvironmentFile={_path(spec.environment)}",
        "# It says that it is well, too; if it is so stuck that it cannot, it is killed.",
        "WatchdogSec=2min",
        "Restart=on-failure\nRestartSec=5",
        "# Wrong usage, a wrong setting, a model that cannot be loaded: no restart cures those.",
        f"RestartPreventExitStatus={' '.join(map(str, HOPELESS))}",
        "# SIGTERM, then time for what is in flight.",
        f"KillMode=mixed\nTimeoutStopSec={spec.stop_seconds}",
        _LIMITS,
        _FOR_ALL,
        *(_for_system(spec) if spec.system else ()),
        "\n[Install]",
        f"WantedBy={'multi-user' if spec.system else 'default'}.target",
    ]
    return "\n".join(sections) + "\n"


_ORDER = ("Wants=network-online.target\nAfter=network-online.target",)

_LIMITS = """
# A connection is a descriptor. A model too big for the machine ends the service, not the machine.
# No core dumps: texts and keys would be in them.
LimitNOFILE=65536
LimitCORE=0
TasksMax=1024
MemoryMax=90%"""

_FOR_ALL = """
# What any user may give up. Left out on purpose:
# MemoryDenyWriteExecute: ctypes' callbacks and what CUDA compiles while it runs need such memory;
# ProcSubset=pid: CUDA and the BLAS look at /proc for the processor and the memory;
# PrivateDevices: it would hide the GPU.
# Weights are mapped from their files, which all of this allows.
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM"""

_SYSTEM = """
# Only the system's manager may do the following.
ProtectSystem=strict
PrivateTmp=yes
PrivateIPC=yes
KeyringMode=private
RemoveIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
# No device but NVIDIA's, and WSL's way to one. Left out: PrivateUsers, with which a port below 1024
# cannot be had.
DevicePolicy=closed
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia-uvm rw
DeviceAllow=char-nvidia-caps rw
DeviceAllow=/dev/dxg rw
# Models that are downloaded go to /var/cache/embedsvc, and it may write nothing else.
CacheDirectory=embedsvc
CacheDirectoryMode=0750
Environment=XDG_CACHE_HOME=%C/embedsvc CUDA_CACHE_PATH=%C/embedsvc/cuda"""


def _for_system(spec: ServiceSpec) -> list[str]:
    capability = "CAP_NET_BIND_SERVICE" if spec.port < PRIVILEGED_PORTS else ""
    lines = [_SYSTEM]
    lines += [f"ReadWritePaths=-{_argument(str(folder))}" for folder in spec.writes]
    lines.append(f"CapabilityBoundingSet={capability}\nAmbientCapabilities={capability}")
    if spec.user is None:
        lines.append("# A user who exists while the service runs, and owns nothing else.")
        lines.append("DynamicUser=yes\nProtectHome=yes")
    else:
        lines.append(f"User={spec.user}\nProtectHome=read-only")
    return lines


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _argument(word: str) -> str:
    """A word of a command as a unit file has it.

    >>> _argument("100%"), _argument("two words")
    ('100%%', '"two words"')
    """
    word = word.replace("%", "%%").replace("$", "$$")
    if any(character in word for character in " \t\"'\\;"):
        escaped = word.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return word
