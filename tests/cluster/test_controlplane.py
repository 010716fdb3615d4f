"""The control plane behaves as one in production where tests build on it: rights, controllers, crashes."""

import secrets
from pathlib import Path

import pytest

from tests.cluster.binaries import binary
from tests.cluster.console import ClusterError, run
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.api


@pytest.fixture
def name() -> str:
    return f"test-{secrets.token_hex(4)}"


def test_a_user_has_the_rights_that_rbac_gives(control_plane: ControlPlane, name: str) -> None:
    kubectl: list[str | Path] = [binary("kubectl"), f"--kubeconfig={control_plane.kubeconfig_for(name)}"]
    with pytest.raises(ClusterError, match="Forbidden"):
        run([*kubectl, "get", "configmaps"])
    control_plane.kubectl("create", "rolebinding", name, "--clusterrole=view", f"--user={name}")
    assert "kube-root-ca.crt" in run([*kubectl, "get", "configmaps"])


def test_controllers_work(control_plane: ControlPlane, name: str) -> None:
    """A Deployment leads to a pod, and its deletion to the pod's (garbage collection)."""
    control_plane.kubectl("create", "deployment", name, "--image=none")
    pod, selector = "pods", f"--selector=app={name}"
    control_plane.kubectl("wait", pod, selector, "--for=create", "--timeout=20s")
    control_plane.kubectl("delete", "deployment", name)
    control_plane.kubectl("wait", pod, selector, "--for=delete", "--timeout=30s")


def test_nothing_is_lost_when_the_api_server_crashes() -> None:
    with ControlPlane() as plane:
        plane.kubectl("create", "configmap", "kept", "--from-literal=key=value")
        plane.processes.kill("kube-apiserver")
        with pytest.raises(ClusterError):
            plane.kubectl("get", "configmap", "kept")
        plane.start_apiserver()
        assert plane.kubectl("get", "configmap", "kept", "--output=jsonpath={.data.key}") == "value"
