"""Two tenants on one real API server: what an author in one namespace may do, and what none of it reaches in the other.

Authors have Kubernetes' own role `edit` in their namespace, with what the chart adds to it; requests are sent as them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from skill_operator.actions import CreateJob
from skill_operator.api import parse
from skill_operator.manifests.job import train_job
from skill_operator.manifests.pod import Images
from skill_operator.observed import Observed
from skill_operator.plan import plan
from tests.api.conftest import UPDATES, until
from tests.api.crd import ROOT, example, put
from tests.cluster.binaries import binary
from tests.cluster.console import run
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.api

Raw = dict[str, Any]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Tenants:
    """Namespaces A and B, an author in each, and one who may only look, in A."""

    def __init__(self, plane: ControlPlane, client: httpx.Client) -> None:
        unique = uuid4().hex[:8]
        self.plane, self.client = plane, client
        self.a, self.b = f"tenant-a-{unique}", f"tenant-b-{unique}"

    def prepare(self) -> None:
        for name in (self.a, self.b):
            self.client.post(
                "/api/v1/namespaces", json={"metadata": {"name": name, "labels": RESTRICTED}}
            ).raise_for_status()
        for namespace, user, role in (
            (self.a, "author-a", "edit"),
            (self.b, "author-b", "edit"),
            (self.a, "viewer-a", "view"),
        ):
            where = ["create", "rolebinding", user, f"--namespace={namespace}"]
            self.plane.kubectl(*where, f"--user={user}", f"--clusterrole={role}")
        shown = ["--show-only=templates/roles-for-users.yaml", "--kube-version=1.34.4"]
        roles = run([binary("helm"), "template", f"t{self.a[-8:]}", str(ROOT / "charts/skillupdate"), *shown])
        self.plane.kubectl("apply", "--filename=-", stdin=roles)
        self._roles = roles
        until(
            "the aggregated roles", lambda: self.create("author-a", self.a, update(), dry_run=True).status_code == 201
        )

    def remove(self) -> None:
        self.plane.kubectl("delete", "--filename=-", stdin=self._roles)
        for name in (self.a, self.b):
            self.plane.kubectl("delete", "namespace", name, "--wait=false")

    def ask(self, user: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Sends a request as somebody."""
        headers = {"Impersonate-User": user, "Impersonate-Group": "system:authenticated", **options.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **options)

    def create(self, user: str, namespace: str, document: Raw, *, dry_run: bool = False) -> httpx.Response:
        parameters = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.ask(user, "POST", UPDATES.format(namespace), json=document, params=parameters)

    def patch(self, user: str, path: str, document: Raw) -> httpx.Response:
        content = {"Content-Type": "application/merge-patch+json"}
        return self.ask(user, "PATCH", path, content=json.dumps(document), headers=content)


def update(**changes: Any) -> Raw:
    document = example("minimal")
    document["metadata"] = {"name": f"u{uuid4().hex[:8]}"}
    for path, value in changes.items():
        put(document, path, value)
    return document


@pytest.fixture(scope="module")
def tenants(crd: ControlPlane, client: httpx.Client) -> Iterator[Tenants]:
    tenants = Tenants(crd, client)
    tenants.prepare()
    yield tenants
    tenants.remove()


def test_an_author_works_in_their_own_namespace_only(tenants: Tenants):
    own = tenants.create("author-a", tenants.a, update())
    assert own.status_code == 201, own.text
    name = own.json()["metadata"]["name"]
    document = update()
    assert tenants.create("author-b", tenants.b, document).status_code == 201
    theirs = f"{UPDATES.format(tenants.b)}/{document['metadata']['name']}"
    for method, path in (
        ("GET", UPDATES.format(tenants.b)),
        ("GET", theirs),
        ("DELETE", theirs),
        ("GET", UPDATES.format("").replace("/namespaces/", "")),
    ):
        assert tenants.ask("author-a", method, path).status_code == 403, path
    assert tenants.create("author-a", tenants.b, update()).status_code == 403
    assert tenants.patch("author-a", theirs, {"spec": {"revert": True}}).status_code == 403
    assert tenants.ask("viewer-a", "GET", f"{UPDATES.format(tenants.a)}/{name}").status_code == 200
    assert (
        tenants.patch("viewer-a", f"{UPDATES.format(tenants.a)}/{name}", {"spec": {"approved": True}}).status_code
        == 403
    )


@pytest.mark.parametrize("user", ["author-a", "viewer-a"])
def test_nobody_forges_a_status(tenants: Tenants, user: str):
    """Neither role of the chart's may write it: whoever could would say that a version was published and proved."""
    name = tenants.create("author-a", tenants.a, update()).json()["metadata"]["name"]
    path = f"{UPDATES.format(tenants.a)}/{name}"
    assert tenants.patch(user, f"{path}/status", {"status": {"phase": "Succeeded"}}).status_code == 403
    if user == "author-a":  # by the object itself it is dropped: status is a subresource
        changed = tenants.patch(user, path, {"status": {"phase": "Succeeded"}})
        assert changed.status_code == 200
        assert changed.json()["status"].get("phase") != "Succeeded"


ELSEWHERE: dict[str, Raw] = {
    "another namespace's Secret": {"spec.storage.secretRef": {"name": "s3-creds", "namespace": "tenant-b"}},
    "its Secret by a path": {"spec.storage.secretRef": {"name": "tenant-b/s3-creds"}},
    "its ServiceAccount by a path": {"spec.storage.serviceAccountName": "tenant-b/skill-trainer"},
    "its ServiceAccount by its user name": {"spec.storage.serviceAccountName": "system:serviceaccount:tenant-b:x"},
    "its Deployment": {
        "spec.serving": {"targetRef": {"kind": "Deployment", "name": "support-llm", "namespace": "tenant-b"}}
    },
    "its Deployment by a path": {"spec.serving": {"targetRef": {"kind": "Deployment", "name": "tenant-b/support-llm"}}},
    "a kind that serves nothing": {"spec.serving": {"targetRef": {"kind": "DaemonSet", "name": "node-agent"}}},
    "a privileged container": {"spec.training.template.securityContext": {"privileged": True}},
    "the host's network": {"spec.training.template.hostNetwork": True},
    "the host's processes": {"spec.training.template.hostPID": True},
    "a token": {"spec.training.template.automountServiceAccountToken": True},
    "a ServiceAccount beside storage's": {"spec.training.template.serviceAccountName": "admin"},
    "a command": {"spec.training.template.command": ["sh", "-c", "id"]},
    "another container": {"spec.training.template.containers": [{"name": "x", "image": "x"}]},
    "a node by its name": {"spec.training.template.nodeName": "control-plane"},
    "a variable of the operator's": {"spec.training.template.env": [{"name": "SKILL_CONFIG", "value": "{}"}]},
    "a label that claims another's pods": {"spec.training.template.labels": {"sdft.dev/update-uid": "x"}},
}


@pytest.mark.parametrize("changes", ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_what_is_not_an_author_s_cannot_be_named(tenants: Tenants, changes: Raw):
    refused = tenants.create("author-a", tenants.a, update(**changes), dry_run=True)
    assert refused.status_code in {400, 422}, refused.text
    (place,) = changes
    assert (
        place.rpartition(".")[2] in refused.json()["message"] or "spec.training.template" in refused.json()["message"]
    )


def planned_pod(tenants: Tenants, **changes: Any) -> Raw:
    """Returns the pod of the train Job that the operator makes of an author's update, as the API server stored it."""
    stored = tenants.create("author-a", tenants.a, update(**changes), dry_run=True)
    assert stored.status_code == 201, stored.text
    body = stored.json()
    known = parse(body)
    assert known.spec is not None
    job = train_job(known, known.spec, Images("trainer:1", "store:1"))
    assert job["metadata"]["namespace"] == tenants.a
    return job["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"spec.training.template.volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"spec.training.template.volumes": [{"name": "own", "emptyDir": {}}]}, ""),
    ],
    ids=["as it is", "a folder of the host", "a volume of its own"],
)
def test_pods_of_an_update_keep_the_restricted_standard(tenants: Tenants, changes: Raw, words: str):
    """Pod Security is judged of what the operator creates, too: it is no way around it."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": planned_pod(tenants, **changes)}
    answer = tenants.client.post(f"/api/v1/namespaces/{tenants.a}/pods", json=pod, params={"dryRun": "All"})
    assert answer.status_code == (403 if words else 201), answer.text
    assert words in answer.text
    container = pod["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_everything_that_is_created_is_in_the_update_s_own_namespace(tenants: Tenants):
    body = tenants.create("author-a", tenants.a, update(), dry_run=True).json()
    for _ in range(3):
        planned = plan(parse(body), Observed(), Images("trainer:1", "store:1"), 1_760_000_000.0)
        for action in planned.actions:
            if isinstance(action, CreateJob):
                assert action.manifest["metadata"]["namespace"] == tenants.a
                (owner,) = action.manifest["metadata"]["ownerReferences"]
                assert owner["uid"] == body["metadata"]["uid"]
                return
        body["status"] = dict(planned.status)
    raise AssertionError("no Job was planned")
