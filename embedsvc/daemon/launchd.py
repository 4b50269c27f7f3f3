"""macOS: a LaunchAgent, which runs while its user is logged in, or a LaunchDaemon, from boot on."""

import os
import plistlib
import re
from pathlib import Path
from typing import Any

from embedsvc.daemon.actions import MARKER, Actions, ours
from embedsvc.daemon.spec import NAME, ServiceSpec, State
from embedsvc.errors import ServiceError

LABEL = f"local.{NAME}"
ROTATION = f"{LABEL}.rotation"
GONE = (0, 3, 36, 113)
"""Exit codes of `bootout` when the job is gone or going: done, no such job, under way, no such
job."""
BUSY = (5, 36, 37)
"""Exit codes of `bootstrap` while the last run of the job is not quite gone."""
BUSY_SECONDS = 30.0
LOGS_KEPT, LOG_KIB = 7, 10_240
HINTS = {
    5: "; `launchctl print-disabled` and Console may say why",
    125: "; nobody is logged in at the screen, where a LaunchAgent lives: say --system",
}


class Launchd:
    """The job, through `launchctl`."""

    name = "launchd"

    def __init__(self, actions: Actions, spec: ServiceSpec, uid: int | None = None) -> None:
        self._actions = actions
        self._spec = spec
        self._domain = "system" if spec.system else f"gui/{os.getuid() if uid is None else uid}"
        self._target = f"{self._domain}/{LABEL}"
        library = (spec.root if spec.system else spec.home) / "Library"
        self._folder = library / ("LaunchDaemons" if spec.system else "LaunchAgents")
        self.file: Path = self._folder / f"{LABEL}.plist"
        self._log_folder = library / "Logs" / NAME
        self._log = self._log_folder / f"{NAME}.log"
        self._launchd_log = self._log_folder / "launchd.log"

    def check(self) -> None:
        """Raise `ServiceError` if its log cannot be rotated, before anything is written."""
        if " " in str(self._log):
            self._actions.refuse(f"newsyslog cannot rotate {self._log}: there is a space in it")

    def install(self) -> list[str]:
        """Write the job and what rotates its log, and start it. Returns no notes: none are
        needed."""
        self.check()
        self._actions.make_folder(self._log_folder, self._spec.user)
        self._actions.write(self.file, self._plist())
        # The system's newsyslog reads the rules of a LaunchDaemon. A LaunchAgent's would have to be
        # root's, so it has a second job that runs newsyslog.
        self._actions.write(self._rotation_rules(), self._newsyslog())
        if not self._spec.system:
            self._actions.write(self._rotation_file(), self._rotation_plist())
            self._bootout(ROTATION)
            self._bootstrap(ROTATION, self._rotation_file())
        self.restart()
        return []

    def uninstall(self) -> None:
        """Stop the job and remove its files."""
        if ours(self.file):
            self.stop()
        if not self._spec.system and ours(self._rotation_file()):
            self._bootout(ROTATION)
        self._actions.remove(self.file)
        self._actions.remove(self._rotation_rules())
        if not self._spec.system:
            self._actions.remove(self._rotation_file())

    def start(self) -> None:
        if not self.file.exists():
            self._actions.refuse("the service is not installed: `embedsvc service install` does it")
        self._start()

    def stop(self) -> None:
        """Unload the job, and wait until what was in flight is answered.

        It is started again by the next login or boot.
        """
        self._bootout(LABEL)

    def restart(self) -> None:
        self.stop()
        self._start()

    def state(self) -> State:
        shown = self._actions.ask("launchctl", "print", self._target)
        if shown.status:
            return State(installed=self.file.exists())
        last = _field(shown.text, "last exit code")
        killed = _field(shown.text, "last terminating signal")
        running = _field(shown.text, "state") == "running"
        pid = _field(shown.text, "pid")
        return State(
            installed=True,
            running=running,
            pid=int(pid) if pid and running else None,
            last_exit=int(last) if last and last.isdecimal() else None,
            last_signal=killed,
        )

    def logs(self, lines: int, *, follow: bool) -> tuple[str, ...]:
        """The command that prints the logs.

        These are the server's own, and what launchd kept of its output before that was open.
        """
        files = [str(file) for file in (self._launchd_log, self._log)]
        return ("tail", "-n", str(lines), *(("-F",) if follow else ()), *files)

    def _start(self) -> None:
        self._actions.do("launchctl", "enable", self._target)
        self._bootstrap(LABEL, self.file)
        # This starts it at once, even if it ended so often that launchd would let it wait.
        self._actions.do("launchctl", "kickstart", self._target)

    def _loaded(self, label: str) -> bool:
        return self._actions.ask("launchctl", "print", f"{self._domain}/{label}").status == 0

    def _bootout(self, label: str) -> None:
        """Unload a job, and wait until it is gone. Before that it cannot be loaded again."""
        if not self._loaded(label):
            return
        self._actions.do("launchctl", "bootout", f"{self._domain}/{label}", allowed=GONE)
        # After `stop_seconds`, launchd kills what is still there.
        seconds = self._spec.stop_seconds + 10
        if not self._actions.until(lambda: not self._loaded(label), seconds):
            raise ServiceError(f"{label} did not end within {seconds} seconds")

    def _bootstrap(self, label: str, file: Path) -> None:
        """Load a job that is not loaded. Tries again while launchd is not done with its last
        run."""
        if self._loaded(label):
            return
        command = ("launchctl", "bootstrap", self._domain, str(file))
        answer = self._actions.do(*command, allowed=tuple(range(256)))

        def loaded() -> bool:
            nonlocal answer
            if answer.status in BUSY and not self._loaded(label):
                answer = self._actions.do(*command, allowed=tuple(range(256)))
            return answer.status not in BUSY or self._loaded(label)

        self._actions.until(loaded, BUSY_SECONDS)
        if answer.status and not self._loaded(label):
            hint = HINTS.get(answer.status, "")
            raise ServiceError(f"launchd refused {file}, with {answer.status}: {answer.text}{hint}")

    def _plist(self) -> str:
        spec = self._spec
        files = {"NumberOfFiles": 65536}  # one for each connection; the default is 256
        settings: dict[str, Any] = {
            "Label": LABEL,
            "ProgramArguments": [
                *spec.command,
                *("--environment-file", str(spec.environment)),
                *("--log-file", str(self._log)),
            ],
            "WorkingDirectory": "/",
            "RunAtLoad": True,
            # It is started again after a crash or a failure, not after it was told to end.
            "KeepAlive": {"SuccessfulExit": False},
            # launchd does not look at exit codes: it tries a wrong setting again, twice a minute.
            "ThrottleInterval": 30,
            "ExitTimeOut": spec.stop_seconds,
            "ProcessType": "Interactive",  # clients wait: no efficiency cores, no slow disk
            "SoftResourceLimits": {**files, "Core": 0},
            "HardResourceLimits": {**files, "Core": 0},
            "Umask": 0o077,
            "StandardOutPath": str(self._launchd_log),
            "StandardErrorPath": str(self._launchd_log),
        }
        if spec.user is not None:
            settings["UserName"] = spec.user
        return _dumps(settings)

    def _rotation_file(self) -> Path:
        return self._folder / f"{ROTATION}.plist"

    def _rotation_rules(self) -> Path:
        if self._spec.system:
            return self._spec.root / "etc" / "newsyslog.d" / f"{NAME}.conf"
        return self._spec.environment.with_name("newsyslog.conf")

    def _rotation_plist(self) -> str:
        return _dumps(
            {
                "Label": ROTATION,
                # -r: newsyslog need not be root.
                "ProgramArguments": [
                    "/usr/sbin/newsyslog",
                    "-r",
                    "-f",
                    str(self._rotation_rules()),
                ],
                "StartCalendarInterval": {"Minute": 30},
                "ProcessType": "Background",
            }
        )

    def _newsyslog(self) -> str:
        """Rules for newsyslog.

        N: no process is signalled, because the server sees by itself that its log was moved. B:
        newsyslog adds no line of its own. The log is not compressed, because the server may still
        be writing a line to the file that was moved.
        """
        owner = f"{self._spec.user}:" if self._spec.user else ""
        return (
            f"# {MARKER}; what it writes over when it is run again.\n"
            "# file, owner, mode, how many, KiB, when, flags\n"
            f"{self._log} {owner} 600 {LOGS_KEPT} {LOG_KIB} * NB\n"
        )


def _dumps(settings: dict[str, Any]) -> str:
    head, doctype, rest = plistlib.dumps(settings).decode().partition("<plist ")
    return f"{head}<!-- {MARKER}; what it writes over when it is run again. -->\n{doctype}{rest}"


def _field(text: str, name: str) -> str | None:
    """A field in the output of `launchctl print`. The job's own are indented by one tab.

    >>> _field("job = {\\n\\tstate = running\\n\\tpid = 7\\n}", "pid")
    '7'
    """
    found = re.search(rf"^\t{name} = ([^\s:(]+)", text, re.MULTILINE)
    return found[1] if found else None
