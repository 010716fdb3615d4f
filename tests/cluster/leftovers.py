"""End and remove what pods leave behind: containers, shims, cgroups and mounts.

Everything is found by names of our own (a cgroup, a socket, a folder), so nothing of another container engine on the
machine is touched, and it works after a crash or a restart too, when no process is left that could clean up.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import wait_until

SHORT_LIVED = Path("/run/skillupdate")
CGROUP_ROOT = "/skillupdate"
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """One name in every hierarchy of cgroup v1, or in the single one of v2."""

    name: str

    def create(self) -> None:
        """Make the cgroup, which the kubelet wants to find."""
        if (CGROUPS / "cgroup.controllers").exists():
            available = (CGROUPS / "cgroup.controllers").read_text().split()
            wanted = [f"+{name}" for name in ("cpuset", "cpu", "io", "memory", "pids") if name in available]
            (CGROUPS / "cgroup.subtree_control").write_text(" ".join(wanted))
            self._in(CGROUPS).mkdir(exist_ok=True)
            (self._in(CGROUPS) / "cgroup.subtree_control").write_text(" ".join(wanted))
            return
        for hierarchy in self._hierarchies():
            folder = self._in(hierarchy)
            folder.mkdir(exist_ok=True)
            if hierarchy.name == "cpuset":  # v1: a new cpuset is empty, and no process may enter an empty one
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (folder / file).write_text((hierarchy / file).read_text())

    def remove(self) -> None:
        """Kill every process inside and remove the cgroup with all that are below it."""
        wait_until(self._killed, f"the end of the processes in the cgroup {self.name}", 20)
        for folder in self._folders():
            with suppress(FileNotFoundError):
                folder.rmdir()

    def _killed(self) -> bool:
        found = False
        for folder in self._folders():
            with suppress(OSError):
                for pid in map(int, (folder / "cgroup.procs").read_text().split()):
                    found = True
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        return not found

    def _folders(self) -> list[Path]:
        """All folders of this cgroup, the innermost first."""
        roots = [self._in(hierarchy) for hierarchy in self._hierarchies()]
        return [Path(path) for root in roots for path, _, _ in os.walk(root, topdown=False)]

    def _hierarchies(self) -> list[Path]:
        if (CGROUPS / "cgroup.controllers").exists():
            return [CGROUPS]
        return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]

    def _in(self, hierarchy: Path) -> Path:
        return hierarchy / self.name.strip("/")


CGROUP = Cgroup(CGROUP_ROOT)


def remove_pods(folder: Path) -> None:
    """End what runs in pods, then unmount and remove what kubelet and containerd had in `folder` and in /run.

    Only when kubelet and containerd have ended: they would bring it back.
    """
    CGROUP.remove()
    _end_shims()
    for mount in _mounts_below(SHORT_LIVED / "containerd", folder):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    shutil.rmtree(SHORT_LIVED / "containerd", ignore_errors=True)


def _end_shims() -> None:
    """Shims outlive containerd by design; ours are those that know our socket."""
    mine = f"-address\0{SHORT_LIVED / 'containerd.sock'}\0".encode()
    for pid in _pids():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if mine in command and b"containerd-shim" in command.partition(b"\0")[0]:
                os.kill(pid, signal.SIGKILL)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _mounts_below(*folders: Path) -> list[str]:
    """The mount points below some folders, the innermost first. Source: proc(5), mountinfo, field 5."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    prefixes = tuple(f"{folder}/" for folder in folders)
    return sorted((point for point in points if f"{point}/".startswith(prefixes)), key=len, reverse=True)
