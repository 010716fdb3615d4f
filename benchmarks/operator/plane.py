"""A control plane for thousands of updates: real API server, controllers and scheduler; nodes and pods are KWOK's.

The API server's audit log says who asked it for what: the measured side does not count its own requests.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import wait_until

from benchmarks.operator.stages import STAGES

OPERATOR = "skill-operator"
"""The user that the operator is."""
NODES = 4
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """Yields a control plane with a scheduler and nodes, in an empty folder; pods are not played yet."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    policy = folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(_POLICY))
    flags: dict[str, dict[str, object]] = {
        "kube-apiserver": {"audit-policy-file": policy, "audit-log-path": _log(folder), "audit-log-maxsize": 2000},
        # Else they would be what is measured: their own limits are 20 requests a second.
        "kube-controller-manager": {
            "kube-api-qps": 500, "kube-api-burst": 1000, "concurrent-job-syncs": 20, "terminated-pod-gc-threshold": 0,
        },
    }  # fmt: skip
    with ControlPlane(folder, controllers=True, flags=flags) as plane:
        try:
            _schedule(plane)
            plane.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(_nodes()))
            yield plane
        finally:
            for name in ("kwok", "kube-scheduler"):
                plane.processes.stop(name, seconds=3)
    shutil.rmtree(folder / "etcd")  # logs stay


def _schedule(plane: ControlPlane) -> None:
    kubeconfig = plane.kubeconfig_for("system:kube-scheduler")
    flags = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
    flags += ["--kube-api-qps=500", "--kube-api-burst=1000"]
    plane.processes.start("kube-scheduler", [binary("kube-scheduler"), *flags])


def _nodes() -> Iterator[dict[str, Any]]:
    room = {"cpu": "1k", "memory": "1Ti", "pods": "1M", "nvidia.com/gpu": "1k"}
    for index in range(NODES):
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"node-{index}", "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "status": {"allocatable": room, "capacity": room},
        }


def play(plane: ControlPlane) -> None:
    """Starts KWOK, and waits until the nodes are Ready."""
    config = plane.folder / "stages.yaml"
    config.write_text(yaml.safe_dump_all(STAGES))
    flags = [f"--kubeconfig={plane.kubeconfig}", f"--config={config}", "--manage-all-nodes=true"]
    plane.processes.start("kwok", [binary("kwok"), *flags])

    def ready() -> bool:
        plane.processes.require("kwok")
        nodes = json.loads(plane.kubectl("get", "nodes", "--output=json"))["items"]
        conditions = [c for node in nodes for c in node["status"].get("conditions", ())]
        return sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions) == NODES

    wait_until(ready, "nodes that are Ready", 60, plane.processes.log("kwok"))


@dataclass(frozen=True)
class Window:
    """A span of time, Unix seconds."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def requests(plane: ControlPlane, window: Window) -> Counter[str]:
    """Returns how often the operator asked for what in a window, by verb: a watch counts when it is opened."""
    counts: Counter[str] = Counter()
    with _log(plane.folder).open() as lines:
        for line in lines:
            event = json.loads(line)
            opens = event["verb"] == "watch"
            if event["stage"] != ("ResponseStarted" if opens else "ResponseComplete"):
                continue
            if window.begin <= datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp() < window.end:
                counts[event["verb"]] += 1
    return counts


def _log(folder: Path) -> Path:
    return folder / "audit.log"
