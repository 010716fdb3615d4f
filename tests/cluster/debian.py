"""What the cluster needs of the system: Linux, root and some Debian packages, installed when they are missing."""

import os
import shutil
import sys
from pathlib import Path

from tests.cluster.console import ClusterError, run, say

OTHER_WAY = "Use a cluster that exists instead: `--kubeconfig FILE --registry HOST` (docs/cluster.md)."
# A file that each package brings, to tell whether it is there.
PACKAGES = {
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


def require() -> None:
    """Make sure that a cluster can run here, installing Debian packages where that is all that is missing.

    Raises:
        ClusterError: it cannot; the message says why and names the other way.
    """
    if sys.platform != "linux":
        raise ClusterError(f"A node needs Linux, and this is {sys.platform}. {OTHER_WAY}")
    if os.geteuid() != 0:
        raise ClusterError(
            f"A node needs root (namespaces, mounts, cgroups), and this is user {os.geteuid()}. {OTHER_WAY}"
        )
    missing = [package for package, file in PACKAGES.items() if not _has(file)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(
            f"These programs are missing, and there is no apt-get to install them: {missing}. {OTHER_WAY}"
        )
    say(f"Installing Debian packages: {' '.join(missing)} …")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "--quiet"], env=quiet)
    run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing], env=quiet)


def _has(file: str) -> bool:
    # Merged /usr and distributions that keep /sbin apart: look by name, too.
    return Path(file).exists() or shutil.which(Path(file).name) is not None
