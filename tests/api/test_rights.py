"""The rights that the chart grants are enough: helm installs it, and the operator runs with its own ServiceAccount.

No pod runs here; the operator is a process of this machine that has the token of the chart's ServiceAccount.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from tests.api.conftest import until
from tests.api.crd import ROOT, example, put
from tests.cluster.binaries import binary
from tests.cluster.console import ClusterError, run
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.api

OPERATOR = [sys.executable, "-m", "skill_operator.cli"]


class Release:
    """A release of the chart, and a namespace in which it is to work."""

    def __init__(self, plane: ControlPlane, folder: Path, *, namespaced: bool) -> None:
        unique = uuid4().hex[:8]
        self.plane, self.folder = plane, folder
        self.home, self.tenant, self.other = f"home-{unique}", f"tenant-{unique}", f"other-{unique}"
        self.watched = [self.tenant] if namespaced else []
        self.kubeconfig = folder / "operator.kubeconfig"

    def install(self) -> None:
        for name in (self.home, self.tenant, self.other):
            self.plane.kubectl("create", "namespace", name)
        # Other tests have applied the CRD already; no node is there to run a hook.
        values = {"crds": {"enabled": False}, "releaseFinalizersOnUninstall": False, "watchNamespaces": self.watched}
        self.helm("install", "r", str(ROOT / "charts/skillupdate"), "--values=-", stdin=yaml.safe_dump(values))
        token = self.plane.kubectl("create", "token", "r-skillupdate", f"--namespace={self.home}").strip()
        self.kubeconfig.write_text(json.dumps(self._kubeconfig(token)))

    def remove(self) -> None:
        self.helm("uninstall", "r")
        for name in (self.home, self.tenant, self.other):
            self.plane.kubectl("delete", "namespace", name, "--wait=false")

    def helm(self, *args: str, stdin: str | None = None) -> str:
        where = [f"--namespace={self.home}", f"--kubeconfig={self.plane.kubeconfig}"]
        return run([binary("helm"), *args, *where], stdin=stdin)

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Asks the API server, as the operator, whether it may do something."""
        account = f"--as=system:serviceaccount:{self.home}:r-skillupdate"
        with contextlib.suppress(ClusterError):  # a no is exit code 1
            return "yes" in self.plane.kubectl("auth", "can-i", verb, resource, f"--namespace={namespace}", account)
        return False

    @contextlib.contextmanager
    def operator(self) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
        """Runs the operator; yields its process, the URL of its health port and its log."""
        ports = free_ports(2)
        listening = {"SKILL_HEALTH_PORT": str(ports[0]), "SKILL_METRICS_PORT": str(ports[1])}
        environment = {**self.environment, **listening}
        log = self.folder / "operator.log"
        with (
            log.open("wb") as file,
            subprocess.Popen([*OPERATOR, "run"], env=environment, stdout=file, stderr=file) as ran,
        ):
            try:
                yield ran, f"http://127.0.0.1:{ports[0]}", log
            finally:
                ran.terminate()

    @property
    def environment(self) -> dict[str, str]:
        """The operator's configuration, as the chart writes it, and its identity."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "SKILL_TRAINER_IMAGE": "trainer",
            "SKILL_STORE_IMAGE": "store",
            "SKILL_NAMESPACES": ",".join(self.watched),
        }

    def _kubeconfig(self, token: str) -> dict[str, Any]:
        cluster = {
            "server": self.plane.endpoints.server,
            "certificate-authority": str(self.plane.authority.folder / "ca.crt"),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "operator"}}],
            "current-context": "c",
        }


@pytest.fixture(scope="module", params=[False, True], ids=["all-namespaces", "namespaced"])
def release(
    request: pytest.FixtureRequest, crd: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    release = Release(crd, tmp_path_factory.mktemp("release"), namespaced=request.param)
    release.install()
    yield release
    release.remove()


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    return False


def test_the_operator_works_with_the_rights_of_the_chart(release: Release):
    """It becomes ready, takes an update, creates the check's Job, tells it by an event, and writes the status."""
    kubectl, namespace = release.plane.kubectl, f"--namespace={release.tenant}"
    update = put(example("publish-only"), "spec.model.uri", f"s3://models/{release.tenant}")  # no queue behind others
    with release.operator() as (process, url, log):
        until("readiness", lambda: is_ready(url) or process.poll() is not None, log.read_text)
        kubectl("apply", namespace, "--filename=-", stdin=json.dumps(update))
        kind = f"skillupdates.sdft.dev/{update['metadata']['name']}"
        phase = ["get", kind, namespace, "--output=jsonpath={.status.phase}"]
        until("the check", lambda: kubectl(*phase) == "Checking", log.read_text)
        until("its Job", lambda: "check" in kubectl("get", "jobs", namespace, "--output=name"), log.read_text)
        assert process.poll() is None
    refused = re.search(r"User .{1,200} cannot .*", log.read_text())  # RBAC's words
    assert not refused, refused and refused[0]


def test_the_operator_may_do_nothing_else(release: Release):
    assert release.may("create", "jobs.batch", release.tenant)
    for verb, resource in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("get", "configmaps"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "pods/log"),
        ("create", "deployments.apps"),
        ("delete", "deployments.apps"),
        ("create", "skillupdates.sdft.dev"),
        ("delete", "skillupdates.sdft.dev"),
        ("update", "skillupdates.sdft.dev"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("create", "serviceaccounts/token"),
    ]:
        assert not release.may(verb, resource, release.tenant), f"{verb} {resource}"
    assert release.may("create", "jobs.batch", release.other) == (not release.watched)


def test_release_finalizers_lets_go_of_what_a_rollout_holds(release: Release):
    kubectl, namespace = release.plane.kubectl, f"--namespace={release.tenant}"
    update = example("minimal")
    update["metadata"]["finalizers"] = ["sdft.dev/rollout", "example.com/someone-else"]
    kubectl("apply", namespace, "--filename=-", stdin=json.dumps(update))
    done = subprocess.run(
        [*OPERATOR, "release-finalizers"], env=release.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Other tests of this API server may have left updates in the middle of a rollout: those are let go as well.
    assert re.search(r"^[1-9]\d* SkillUpdates released", done.stdout, re.MULTILINE), done.stdout
    kept = kubectl("get", "skup", "refund-tool", namespace, "--output=jsonpath={.metadata.finalizers}")
    assert json.loads(kept) == ["example.com/someone-else"]
    kubectl("patch", "skup", "refund-tool", namespace, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
