"""The one node: containerd, kubelet, kube-proxy and CoreDNS, with the settings that a plain machine needs.

Every setting that is not obvious names the failure that it prevents. Source for the fields: KubeletConfiguration and
KubeProxyConfiguration of Kubernetes 1.34, containerd 1.6's CRI plugin.
"""

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import binary
from tests.cluster.console import ClusterError, run, tail
from tests.cluster.controlplane import POD_RANGE, ControlPlane
from tests.cluster.leftovers import CGROUP, CGROUP_ROOT, SHORT_LIVED
from tests.cluster.network import ENTER, HOST, NODE, PodNetwork
from tests.cluster.processes import wait_until

NAME = "node"
DOMAIN = "cluster.local"
SOCKET = SHORT_LIVED / "containerd.sock"
CRI_NOT_READY = "server is not initialized yet"
PROCESSES = ("coredns", "kube-proxy", "kubelet", "kube-scheduler", "containerd")


@dataclass(frozen=True)
class Node:
    """The node of one control plane; `images` keeps what containerd has pulled, and outlives the node."""

    plane: ControlPlane
    images: Path
    pause_image: str

    def start(self) -> None:
        """Start every part, and wait until pods can run.

        Raises:
            ClusterError: a part ended or was not ready in time; the message has its log's tail.
        """
        self.start_containerd()
        self._start_scheduler()
        kubelet = self._kubelet_flags()
        self._start("kubelet", *kubelet)
        self._start_proxy()
        self._start_dns()
        self._wait_for_kubelet(kubelet)
        self._wait("coredns", _dns_answers, "the start of CoreDNS", 60)
        for name in PROCESSES:
            self.plane.processes.require(name)

    def ready(self) -> bool:
        """Tell whether the API says that the node is Ready."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.plane.kubectl("get", "node", NAME, "--ignore-not-found", f"--output=jsonpath={path}") == "True"

    def start_containerd(self) -> None:
        """Start containerd on the host side, from where it reaches the registry on the loopback address."""
        network = PodNetwork(self.plane.folder / "cni")
        network.write()
        SHORT_LIVED.mkdir(parents=True, exist_ok=True)
        file = self.plane.folder / "containerd.toml"
        file.write_text(
            f"""version = 2
root = "{self.images}"
state = "{SHORT_LIVED / "containerd"}"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{self.pause_image}"
# The kubelet fetches logs and exec streams from here; it cannot reach the host's loopback address.
stream_server_address = "{HOST}"
stream_server_port = "0"
# Without CAP_SYS_RESOURCE no sandbox may lower its score, and none would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{network.plugins}"
conf_dir = "{network.configuration}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
        )
        self._run_containerd(file)
        # What an earlier node ran is in containerd's books still, and the kubelet would try to end it.
        forgotten = containerd("containers", "list", "--quiet").split()
        if forgotten:
            containerd("containers", "delete", *forgotten)
            self.plane.processes.stop("containerd")
            self._run_containerd(file)

    def _run_containerd(self, config: Path) -> None:
        self.plane.processes.start("containerd", ["containerd", "--config", config])
        self._wait("containerd", _containerd_answers, "the start of containerd", 30)

    def _start_scheduler(self) -> None:
        kubeconfig = self.plane.kubeconfig_for("system:kube-scheduler")
        self._start("kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0")

    def _wait_for_kubelet(self, flags: Sequence[str]) -> None:
        """Wait for the node; start a kubelet again that came before containerd's CRI service, as systemd would.

        containerd answers on its socket before that service is ready, and nothing but a CRI call can tell.
        """
        processes = self.plane.processes

        def ready() -> bool:
            if processes.pid("kubelet") is None and CRI_NOT_READY in tail(processes.log("kubelet")):
                self._start("kubelet", *flags)
            processes.require("kubelet")
            return self.ready()

        wait_until(ready, "a Ready node", 120, processes.log("kubelet"))

    def _kubelet_flags(self) -> list[str]:
        folder, pki = self.plane.folder, self.plane.authority.folder
        server = self.plane.authority.issue("kubelet", NAME, hosts=[NAME, NODE])
        CGROUP.create()
        config = self._config(
            "KubeletConfiguration",
            "kubelet",
            {
                "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(pki / "ca.crt")}},
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(server.certificate),
                "tlsPrivateKeyFile": str(server.key),
                "containerRuntimeEndpoint": f"unix://{SOCKET}",
                "clusterDNS": [NODE],
                "clusterDomain": DOMAIN,
                "resolvConf": "",
                "serializeImagePulls": False,
                # Pods in a cgroup of our own, apart from those of another kubelet, and found again by `down`.
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": CGROUP_ROOT,
                "failCgroupV1": False,
                "failSwapOn": False,
                # A developer's disk is often fuller than the defaults (15 %) allow.
                "evictionHard": {"imagefs.available": "1%", "nodefs.available": "1%", "memory.available": "100Mi"},
                "imageGCHighThresholdPercent": 100,
                "imageGCLowThresholdPercent": 99,
                "podLogsDir": str(folder / "pod-logs"),
                "volumePluginDir": str(folder / "volume-plugins"),
            },
        )
        kubeconfig = self.plane.kubeconfig_for(f"system:node:{NAME}", groups=["system:nodes"])
        return [
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NAME}",
            f"--node-ip={NODE}",
            f"--root-dir={folder / 'kubelet'}",
        ]

    def _start_proxy(self) -> None:
        config = self._config(
            "KubeProxyConfiguration",
            "kubeproxy",
            {
                "clientConnection": {"kubeconfig": str(self.plane.kubeconfig_for("system:kube-proxy"))},
                "mode": "nftables",
                "clusterCIDR": POD_RANGE,
                "hostnameOverride": NAME,
                # The table's size belongs to the host; a namespace may not set it.
                "conntrack": {"maxPerCore": 0},
            },
        )
        self._start("kube-proxy", f"--config={config}")

    def _start_dns(self) -> None:
        kubeconfig = self.plane.kubeconfig
        file = self.plane.folder / "Corefile"
        zones = f"{DOMAIN} in-addr.arpa"
        file.write_text(f".:53 {{\n errors\n kubernetes {zones} {{\n  kubeconfig {kubeconfig}\n }}\n cache 5\n}}\n")
        self._start("coredns", "-conf", str(file))

    def _config(self, kind: str, group: str, fields: dict[str, object]) -> Path:
        version = "v1beta1" if group == "kubelet" else "v1alpha1"
        document = {"apiVersion": f"{group}.config.k8s.io/{version}", "kind": kind, **fields}
        path = self.plane.folder / f"{group}.json"
        path.write_text(json.dumps(document, indent=1))
        return path

    def _start(self, name: str, *flags: str) -> None:
        self.plane.processes.start(name, [*ENTER, binary(name), *flags])

    def _wait(self, name: str, check: Callable[[], bool], what: str, seconds: float) -> None:
        self.plane.processes.wait(name, check, what, seconds)


def containerd(*arguments: str) -> str:
    """Run `ctr` on the node's containerd, in the namespace that Kubernetes uses."""
    return run(["ctr", f"--address={SOCKET}", "--namespace=k8s.io", *arguments])


def _dns_answers() -> bool:
    try:
        socket.create_connection((NODE, 53), timeout=2).close()
    except OSError:
        return False
    return True


def _containerd_answers() -> bool:
    try:
        containerd("version")
    except ClusterError:
        return False
    return True
