"""etcd, kube-apiserver and (on request) kube-controller-manager: a real API without a node.

Alone it needs neither root nor a namespace and is ready in a few seconds; the whole cluster starts the same one inside
its network namespace. It never touches a process that it has not started.
"""

import shutil
import socket
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.binaries import binary
from tests.cluster.console import run
from tests.cluster.pki import Authority, key_pair
from tests.cluster.processes import Processes

SERVICE_RANGE, API_SERVICE = "10.96.0.0/16", "10.96.0.1"
POD_RANGE = "10.244.0.0/16"
LOOPBACK = "127.0.0.1"
PROCESSES = ("kube-controller-manager", "kube-apiserver", "etcd")


@dataclass(frozen=True)
class Endpoints:
    """Where the control plane listens; etcd stays on the loopback address in any case."""

    host: str
    api: int
    etcd: int
    etcd_peer: int

    @classmethod
    def free(cls) -> Self:
        """Take ports of the loopback address that nobody uses now."""
        with ExitStack() as held:  # held together, so that the three differ
            sockets = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(3)]
            return cls(LOOPBACK, *(each.getsockname()[1] for each in sockets))

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.host}:{self.api}"


def free_port() -> int:
    """Return a port of the loopback address that nobody uses now."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


class ControlPlane:
    """A control plane, as a context manager: ready on entry, ended on exit.

    `controllers` adds kube-controller-manager: garbage collection, Jobs, Deployments, namespaces, service accounts.
    `enter` is put before every command, to run it in another network namespace; `outlive` leaves the processes running
    when this one ends. Tests that crash a part use `processes.kill(name)` and `start_…()`, on the same ports.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        controllers: bool = False,
        endpoints: Endpoints | None = None,
        enter: Sequence[str] = (),
        outlive: bool = False,
        flags: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self._flags = flags or {}
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="skillupdate-control-plane-"))
        self.endpoints = endpoints or Endpoints.free()
        self.processes = Processes(self.folder, outlive)
        self.controllers = controllers
        self._enter = tuple(enter)
        self.authority = Authority.create(self.folder / "pki")
        self.kubeconfig = self.kubeconfig_for("admin", groups=["system:masters"])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all parts and wait until they serve.

        Raises:
            ClusterError: a part ended or was not ready in time; the message has its log's tail.
        """
        self._write_pki()
        self.start_etcd()
        self.start_apiserver()
        if self.controllers:
            self.start_controllers()

    def stop(self) -> None:
        """End all parts, last started first; a temporary folder is removed."""
        for name in PROCESSES:
            self.processes.stop(name, seconds=3)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl as the cluster's administrator and return its output.

        Raises:
            ClusterError: kubectl failed; the message has what it said.
        """
        return run([binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *args], stdin=stdin)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return the kubeconfig of a user, who has the rights that RBAC gives to the name and the groups."""
        file = user.replace(":", "-").replace("/", "-")
        return self.authority.kubeconfig(
            f"{file}.kubeconfig", self.endpoints.server, self.authority.issue(f"user-{file}", user, groups=groups)
        )

    def start_etcd(self) -> None:
        """Start etcd with the data that its folder has; nothing is synced to disk, as tests lose nothing by it."""
        client, peer = (f"http://{LOOPBACK}:{port}" for port in (self.endpoints.etcd, self.endpoints.etcd_peer))
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        )

    def start_apiserver(self) -> None:
        """Start kube-apiserver and wait until it is ready."""
        pki, host = self.authority.folder, self.endpoints.host
        flags = {
            "etcd-servers": f"http://{LOOPBACK}:{self.endpoints.etcd}",
            "bind-address": host,
            "advertise-address": host,
            "secure-port": self.endpoints.api,
            "service-cluster-ip-range": SERVICE_RANGE,
            "cert-dir": pki,
            "tls-cert-file": pki / "apiserver.crt",
            "tls-private-key-file": pki / "apiserver.key",
            "client-ca-file": pki / "ca.crt",
            "kubelet-client-certificate": pki / "user-admin.crt",
            "kubelet-client-key": pki / "user-admin.key",
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-key-file": pki / "tokens.pub",
            "service-account-signing-key-file": pki / "tokens.key",
            "service-account-issuer": "https://kubernetes.default.svc",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
        }
        if host == LOOPBACK:  # an endpoint of the `kubernetes` Service may not be a loopback address
            flags["endpoint-reconciler-type"] = "none"
        if not self.controllers:  # nobody makes the service account that this plugin asks for
            flags["disable-admission-plugins"] = "ServiceAccount"
        self._start("kube-apiserver", *_flags(flags | self._flags.get("kube-apiserver", {})))
        self.processes.wait("kube-apiserver", self.ready, "the start of kube-apiserver", 60)

    def start_controllers(self) -> None:
        """Start kube-controller-manager and wait until it has made the default service account."""
        pki = self.authority.folder
        flags = {
            "kubeconfig": self.kubeconfig_for("system:kube-controller-manager"),
            "cluster-cidr": POD_RANGE,
            "allocate-node-cidrs": "true",
            "service-account-private-key-file": pki / "tokens.key",
            "root-ca-file": pki / "ca.crt",
            "use-service-account-credentials": "true",
            "cluster-signing-cert-file": pki / "ca.crt",
            "cluster-signing-key-file": pki / "ca.key",
            "leader-elect": "false",
            "secure-port": 0,
        }
        self._start("kube-controller-manager", *_flags(flags | self._flags.get("kube-controller-manager", {})))
        self.processes.wait("kube-controller-manager", self._has_default_account, "the first service account", 60)

    def ready(self) -> bool:
        """Tell whether the API server answers /readyz with 200."""
        return self._answers("/readyz")

    def _has_default_account(self) -> bool:
        return self._answers("/api/v1/namespaces/default/serviceaccounts/default")

    def _answers(self, path: str) -> bool:
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate))
        pki = self.authority.folder
        context.load_cert_chain(pki / "user-admin.crt", pki / "user-admin.key")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.endpoints.server}{path}", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _write_pki(self) -> None:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        hosts = [*names, API_SERVICE, LOOPBACK, self.endpoints.host]
        self.authority.issue("apiserver", "kube-apiserver", hosts=list(dict.fromkeys(hosts)))
        key_pair(self.authority.folder / "tokens")

    def _start(self, name: str, *flags: str) -> None:
        self.processes.start(name, [*self._enter, binary(name), *flags])


def _flags(flags: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]
