"""What the cluster needs of the system: Linux, root and some Debian packages, installed when they are missing."""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import cache_folder, locked
from tests.cluster.console import ClusterError, run, say

# A file that each package brings, to tell whether it is there.
FILES = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "buildah": "/usr/bin/buildah",
    "docker-registry": "/usr/bin/docker-registry",
    "debootstrap": "/usr/sbin/debootstrap",
    "nftables": "/usr/sbin/nft",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/sbin/ip",
    "procps": "/usr/sbin/sysctl",
}


@dataclass(frozen=True)
class Need:
    """What a purpose needs, and what to do instead on a machine that cannot give it."""

    purpose: str
    packages: Sequence[str]
    other_way: str

    def require(self) -> None:
        """Make sure that it is there, installing Debian packages where that is all that is missing.

        Raises:
            ClusterError: it is not; the message says why and names the other way.
        """
        if sys.platform != "linux":
            raise ClusterError(f"{self.purpose} needs Linux, and this is {sys.platform}. {self.other_way}")
        if os.geteuid() != 0:
            raise ClusterError(f"{self.purpose} needs root, and this is user {os.geteuid()}. {self.other_way}")
        missing = [package for package in self.packages if not _has(FILES[package])]
        if missing:
            self._install(missing)

    def _install(self, packages: Sequence[str]) -> None:
        if not shutil.which("apt-get"):
            raise ClusterError(
                f"{self.purpose} needs {', '.join(packages)}, and there is no apt-get to install them. {self.other_way}"
            )
        say(f"Installing Debian packages: {' '.join(packages)} …")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "--quiet"], env=quiet)
        run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages], env=quiet)


NODE = Need(
    "A node on this machine",
    tuple(FILES),
    "Use a cluster that exists instead: `--kubeconfig FILE --registry HOST` (docs/cluster.md).",
)
IMAGES = Need(
    "Building images",
    ("buildah", "debootstrap"),
    "Do it on a Linux machine as root; it may push to any registry with `--kubeconfig FILE --registry HOST`.",
)


def program(name: str, package: str) -> Path:
    """Return the path of a program: the machine's own, or that of a Debian package unpacked into the cache.

    Unpacked and not installed, it needs no root, brings no further packages along and starts no service.

    Raises:
        ClusterError: the machine has no such program and is not Debian's.
    """
    own = shutil.which(name)
    if own:
        return Path(own)
    folder = cache_folder() / "debian" / package
    if not folder.exists():
        with locked(folder.with_suffix(".lock")):
            if not folder.exists():  # another process may have unpacked it while this one waited
                _unpack(package, folder)
    return folder / "usr/bin" / name


def _unpack(package: str, folder: Path) -> None:
    if not shutil.which("apt-get"):
        raise ClusterError(f"{package} is needed, and there is no apt-get to get it: put its programs on the PATH")
    say(f"Fetching Debian's package {package} …")
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        fetch = ["apt-get", "--quiet", "--option=APT::Sandbox::User=root", "download", package]
        try:
            run(fetch, cwd=Path(place))
        except ClusterError:  # most often: the lists of packages are not there yet
            run(["apt-get", "update", "--quiet"])
            run(fetch, cwd=Path(place))
        (archive,) = Path(place).glob("*.deb")
        run(["dpkg-deb", "--extract", archive, Path(place) / "tree"])
        (Path(place) / "tree").rename(folder)


def _has(file: str) -> bool:
    # Merged /usr and distributions that keep /sbin apart: look by name, too.
    return Path(file).exists() or shutil.which(Path(file).name) is not None
