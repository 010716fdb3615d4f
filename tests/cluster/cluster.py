"""Bring the cluster up and down, and work with it: the functions that tests, demo and command line share.

Two backends, one `Cluster`: the node of this machine (`up`), or any cluster that exists with a registry that it pulls
from (`connect` with a kubeconfig).
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import debian, images, network, registry
from tests.cluster.binaries import binary, cache_folder, locked
from tests.cluster.console import ClusterError, run, say
from tests.cluster.controlplane import PROCESSES as PLANE_PROCESSES
from tests.cluster.controlplane import ControlPlane, Endpoints
from tests.cluster.engines import Engine, KServe, Rollouts
from tests.cluster.leftovers import remove_pods
from tests.cluster.node import PROCESSES as NODE_PROCESSES
from tests.cluster.node import Node
from tests.cluster.processes import Processes
from tests.cluster.registry import Registry

# The last started first, so that nobody complains about a missing partner.
PROCESSES = (*NODE_PROCESSES, *PLANE_PROCESSES, "registry")


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs: whose kubeconfig this is, and the registry that it pulls from."""

    kubeconfig: Path
    registry: Registry

    @property
    def kubectl_command(self) -> list[str]:
        """The beginning of a kubectl command line, for commands that go on (`watch`, `port-forward`)."""
        return [str(binary("kubectl")), f"--kubeconfig={self.kubeconfig}"]

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output.

        Raises:
            ClusterError: kubectl failed; the message has what it said.
        """
        return run([*self.kubectl_command, *args], stdin=stdin)

    def helm(self, *args: str) -> str:
        """Run helm and return its output.

        Raises:
            ClusterError: helm failed; the message has what it said.
        """
        return run([binary("helm"), f"--kubeconfig={self.kubeconfig}", *args])

    def load(self, *targets: str) -> dict[str, str]:
        """Return the image reference of each target, built and pushed now where the registry does not have it yet."""
        return {target: images.load(target, self.registry).reference for target in targets}


def up() -> Cluster:
    """Bring the node up, or return it as it is when it is up and well.

    Raises:
        ClusterError: this machine cannot run a node, or a part did not start; then nothing is left running.
    """
    debian.NODE.require()
    with locked(cache_folder() / "cluster.lock"):
        if is_up():
            say("The cluster is up.")
            return _here()
        _clear()
        started = time.monotonic()
        try:
            _start()
        except BaseException:
            _clear()
            raise
        say(f"The cluster is up after {time.monotonic() - started:.0f} s: export KUBECONFIG={_here().kubeconfig}")
        return _here()


def down() -> None:
    """End what `up` started; images, programs and logs stay in the cache."""
    with locked(cache_folder() / "cluster.lock"):
        _clear()
    say(f"The cluster is down. Its images and programs are in {cache_folder()}.")


def is_up() -> bool:
    """Tell whether all processes run and the node is Ready."""
    if any(pid is None for pid in status().values()):
        return False
    try:
        ready = '--output=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
        return _here().kubectl("get", "nodes", "--request-timeout=10s", ready) == "True"
    except ClusterError:
        return False


def engine(program: str) -> Engine | Rollouts:
    """Return another project's controller for the node of this machine, for the caller to install, start and stop."""
    if program == "argo-rollouts":
        return Rollouts(_here().kubeconfig, _folder())
    if program == "kserve":
        return KServe(_here().kubeconfig, _folder(), host=network.NODE, enter=network.ENTER)
    return Engine(program, _here().kubeconfig, _folder(), host=network.NODE, enter=network.ENTER)


def status() -> dict[str, int | None]:
    """Return the id of each of the node's processes, or None for one that does not run."""
    processes = Processes(_folder(), outlive=True)
    return {name: processes.pid(name) for name in PROCESSES}


def connect(kubeconfig: str = "", registry: str = "") -> Cluster:
    """Return the cluster of a kubeconfig, or without one the node of this machine, brought up if need be.

    Raises:
        ClusterError: a kubeconfig without its registry (or the other way round), or the cluster does not answer.
    """
    if not kubeconfig and not registry:
        return up()
    if not kubeconfig or not registry:
        raise ClusterError("--kubeconfig and --registry go together: the cluster, and where it pulls images from.")
    cluster = Cluster(Path(kubeconfig).expanduser(), Registry(registry))
    cluster.kubectl("get", "--raw", "/readyz", "--request-timeout=20s")
    return cluster


def _start() -> None:
    folder = _folder()
    for program in ("etcd", "kube-apiserver", "coredns", "kubectl"):  # builds take minutes: before anything runs
        binary(program)
    shutil.rmtree(folder / "log", ignore_errors=True)
    processes = Processes(folder, outlive=True)
    say("Starting registry, network and control plane …")
    pause = images.load("pause", registry.start(processes, _registry_data()))
    network.create()
    endpoints = Endpoints(network.NODE, api=6443, etcd=2379, etcd_peer=2380)
    plane = ControlPlane(folder, controllers=True, endpoints=endpoints, enter=network.ENTER, outlive=True)
    plane.start()
    say("Starting the node …")
    Node(plane, cache_folder() / "containerd", pause.reference).start()


def _clear() -> None:
    folder = _folder()
    processes = Processes(folder, outlive=True)
    for name in PROCESSES:
        processes.stop(name, seconds=5)
    if not folder.exists():
        return
    remove_pods(folder)
    network.remove()
    for entry in folder.iterdir():
        if entry.name != "log":
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _here() -> Cluster:
    return Cluster(_folder() / "pki" / "admin.kubeconfig", registry.at(_registry_data()))


def _folder() -> Path:
    return cache_folder() / "cluster"


def _registry_data() -> Path:
    return cache_folder() / "registry"
