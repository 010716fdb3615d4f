"""The cluster's own network namespace, from which nothing leaves the machine.

    host ── veth 172.31.255.1 ─┬─ 172.31.255.2 ── control plane, kubelet, DNS, Services, pods 10.244.0.0/24
                               └─ the only way in or out, for the node's own processes alone

The namespace has a default route, since Kubernetes wants one, but it ends at a bridge without ports. What pods send is
never forwarded over the veth.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.console import ClusterError, run

NAMESPACE = "skillupdate"
HOST_LINK, NODE_LINK = "skillup-host", "skillup-node"
HOST, NODE = "172.31.255.1", "172.31.255.2"
ENTER = ("nsenter", f"--net=/run/netns/{NAMESPACE}")
DEAD_END = "192.0.2.1/32"  # TEST-NET-1, RFC 5737: nobody's

FIREWALL = f"""
table inet skillupdate {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{NODE_LINK}" drop
    iifname "{NODE_LINK}" drop
  }}
}}
"""


def create() -> None:
    """Make the namespace and its links.

    Raises:
        ClusterError: the kernel refused a step, or the machine uses 172.31.255.0/30 itself.
    """
    taken = json.loads(run(["ip", "-json", "route", "show", "root", "172.31.255.0/30"]))
    if taken:
        raise ClusterError(f"This machine has routes inside 172.31.255.0/30, which the cluster needs: {taken}.")
    inside = ("ip", "-netns", NAMESPACE)
    for command in (
        ("ip", "netns", "add", NAMESPACE),
        (*inside, "link", "set", "lo", "up"),
        ("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", NAMESPACE),
        ("ip", "address", "add", f"{HOST}/30", "dev", HOST_LINK),
        ("ip", "link", "set", HOST_LINK, "up"),
        (*inside, "address", "add", f"{NODE}/30", "dev", NODE_LINK),
        (*inside, "link", "set", NODE_LINK, "up"),
        (*inside, "link", "add", "dead-end", "type", "bridge"),
        (*inside, "address", "add", DEAD_END, "dev", "dead-end"),
        (*inside, "link", "set", "dead-end", "up"),
        (*inside, "route", "add", "default", "dev", "dead-end"),
        # Not `ip netns exec`: it remounts /sys.
        (*ENTER, "sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"),
    ):
        run(command)
    run([*ENTER, "nft", "--file", "-"], stdin=FIREWALL)


def remove() -> None:
    """Remove what `create` made, also when only a part is there."""
    for command in (("ip", "link", "delete", HOST_LINK), ("ip", "netns", "delete", NAMESPACE)):
        subprocess.run(command, capture_output=True, check=False)


@dataclass(frozen=True)
class PodNetwork:
    """The CNI configuration: each pod has a link of its own to the node, so every packet passes the Service rules."""

    folder: Path

    @property
    def configuration(self) -> Path:
        """The folder for containerd's `conf_dir`."""
        return self.folder / "conf"

    @property
    def plugins(self) -> Path:
        """The folder for containerd's `bin_dir`."""
        return self.folder / "bin"

    def write(self, debian_plugins: Path = Path("/usr/lib/cni")) -> None:
        """Write configuration and plugins; containerd runs on the host, so its plugins enter the namespace first."""
        for folder in (self.configuration, self.plugins):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("ptp", "host-local"):
            wrapper = self.plugins / name
            wrapper.write_text(f'#!/bin/sh\nexec {" ".join(ENTER)} {debian_plugins / name} "$@"\n')
            wrapper.chmod(0o755)
        (self.plugins / "loopback").unlink(missing_ok=True)
        (self.plugins / "loopback").symlink_to(debian_plugins / "loopback")
        addresses = {
            "type": "host-local",
            "dataDir": str(self.folder / "addresses"),
            "ranges": [[{"subnet": "10.244.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        chain = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": addresses}]}
        (self.configuration / "10-pods.conflist").write_text(json.dumps(chain, indent=1))
