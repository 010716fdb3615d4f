"""Start, watch and end the cluster's own processes, also those that an earlier command left running.

A process is known by its id together with the moment it started, so that an id that the system has given to another
program in the meantime (after a restart, for example) is never signalled.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.console import ClusterError, tail

POLL_SECONDS = 0.1


def identity(pid: int) -> str | None:
    """Return what tells this process from any other that had or will have its id, or None when it is gone.

    A zombie counts as gone when its last thread is: until then, its ports are taken.

    Source: proc(5), fields 3, 20 and 22 of /proc/<pid>/stat: state, threads, start in clock ticks since boot.
    """
    if sys.platform != "linux":
        started = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return started.stdout.strip() or None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] == "Z" and int(fields[17]) <= 1 else f"{boot}/{fields[19]}"


def wait_until(check: Callable[[], bool], what: str, seconds: float, log: Path | None = None) -> None:
    """Wait until `check` is true.

    Raises:
        ClusterError: it was not within `seconds`; the message ends with the log's last lines.
    """
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise ClusterError(f"{what} took more than {seconds:.0f} s. {_evidence(log)}")
        time.sleep(POLL_SECONDS)


def until_served(kubectl: Callable[..., str], *crds: str) -> None:
    """Wait until the API server serves what these new CRDs, `plural.group`, define.

    Not by `kubectl wait`: that gives up at once where a new CRD has no conditions yet.
    """
    wait_until(
        lambda: set(crds) <= set(kubectl("api-resources", "--output=name").split()), f"serving {', '.join(crds)}", 60
    )


def _evidence(log: Path | None) -> str:
    return f"The end of {log}:\n{tail(log)}" if log else ""


@dataclass(frozen=True)
class Processes:
    """The named processes of one cluster; `folder` holds `run/<name>.json` and `log/<name>.log`."""

    folder: Path
    # A test's processes end with it, even when it is killed; a cluster outlives the command that started it.
    outlive: bool

    def log(self, name: str) -> Path:
        """Return where the output of a process goes."""
        return self.folder / "log" / f"{name}.log"

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
        """Start a process in a session of its own and return its id."""
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        words = [*self._leash(), *(str(word) for word in argv)]
        pid = os.posix_spawnp(
            words[0],
            words,
            {**os.environ, **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self._file(name).write_text(json.dumps({"pid": pid, "identity": identity(pid)}))
        return pid

    def pid(self, name: str) -> int | None:
        """Return the id of a process that runs, or None."""
        try:
            known = json.loads(self._file(name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return known["pid"] if known["identity"] and identity(known["pid"]) == known["identity"] else None

    def require(self, name: str) -> None:
        """Raise ClusterError with the log's tail when a process that should run has ended."""
        if self.pid(name) is None:
            raise ClusterError(f"{name} has ended. {_evidence(self.log(name))}")

    def wait(self, name: str, check: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until `check` is true while the process lives.

        Raises:
            ClusterError: the process ended, or the time is over.
        """

        def alive_and_done() -> bool:
            self.require(name)
            return check()

        wait_until(alive_and_done, what, seconds, self.log(name))

    def kill(self, name: str) -> None:
        """End a process at once, as a crash would, and wait until it is gone."""
        self._end(name, signal.SIGKILL, 10)

    def stop(self, name: str, seconds: float = 10) -> None:
        """Ask a process to end, and make it end when it has not after `seconds`."""
        if not self._end(name, signal.SIGTERM, seconds):
            self.kill(name)

    def _end(self, name: str, how: signal.Signals, seconds: float) -> bool:
        pid = self.pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            try:
                wait_until(lambda: self._gone(name, pid), f"the end of {name}", seconds, self.log(name))
            except ClusterError:
                return False
        self._file(name).unlink(missing_ok=True)
        return True

    def _gone(self, name: str, pid: int) -> bool:
        with suppress(ChildProcessError):  # not ours to reap when an earlier command started it
            os.waitpid(pid, os.WNOHANG)
        return self.pid(name) is None

    def _file(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.json"

    def _leash(self) -> list[str]:
        if self.outlive or not shutil.which("setpriv"):
            return []
        return ["setpriv", "--pdeathsig", "KILL", "--"]
