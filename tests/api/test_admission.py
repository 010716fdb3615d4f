"""The chart's ValidatingAdmissionPolicy on a real API server: what it refuses, in which words, and what it admits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from tests.api.conftest import Api, until
from tests.api.crd import REMOVED, ROOT, SPEC, example, put
from tests.cluster.binaries import binary
from tests.cluster.console import run
from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.api

LIMITS = {
    "uriPrefixes": ["s3://models", "s3://skills/"],
    "images": ["registry.example.com/trusted/", "registry.example.com/trainer"],
    "endpoints": ["aws", "http://s3.storage.svc:9000"],
    "maxNodes": 2,
    "maxGpus": 8,
    "approval": "Manual",
    "analysis": "Forbidden",
    "secrets": ["s3-creds"],
    "serviceAccounts": ["skill-trainer"],
    "templateFields": ["labels", "annotations", "nodeSelector", "tolerations"],
}
TEMPLATE_FIELDS = SPEC["properties"]["training"]["properties"]["template"]["properties"]
IMAGE = "spec.training.template.image"
TEMPLATE = "spec.training.template"
HOST = {"name": "host", "hostPath": {"path": "/"}}
TOKEN = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
PROGRAM = {"name": "PYTHONPATH", "value": "/mine"}
MINE = {"name": "qa", "uri": "s3://mine/a.jsonl"}
ANALYSIS = {"samples": "up{pod=~'$pods'}", "metrics": [{"name": "x", "query": "up{pod=~'$pods'}", "max": "1"}]}
Raw = dict[str, Any]


class Policy:
    """The policy for a release's namespace, a tenant with limits and one without."""

    def __init__(self, plane: ControlPlane, client: httpx.Client) -> None:
        unique = uuid4().hex[:8]
        self._plane = plane
        self.release = f"p{unique}"
        self.home, self.tenant, self.free = f"home-{unique}", f"limited-{unique}", f"free-{unique}"
        self.limited = Api(client, self.tenant, dry_run=True)
        self.unlimited = Api(client, self.free, dry_run=True)

    @property
    def configmap(self) -> str:
        return f"{self.release}-skillupdate-limits-{self.tenant}"

    def apply(self) -> None:
        for name in (self.home, self.tenant, self.free):
            self._plane.kubectl("create", "namespace", name)
        # Of all other namespaces, those of other tests, nothing is asked.
        values = {"admissionPolicy": {"enabled": True, "namespaces": {self.tenant: LIMITS}}}
        flags = ["--kube-version=1.34.4", "--show-only=templates/admissionpolicy.yaml", f"--namespace={self.home}"]
        chart = str(ROOT / "charts/skillupdate")
        self._rendered = run(
            [binary("helm"), "template", self.release, chart, *flags, "--values=-"], stdin=yaml.safe_dump(values)
        )
        self._plane.kubectl("apply", "--filename=-", stdin=self._rendered)
        # Until the ConfigMaps have been seen, too, everything is refused.
        self._until("the policy", limited=403, unlimited=201)

    def remove(self) -> None:
        self._plane.kubectl("delete", "validatingadmissionpolicy", f"{self.release}-skillupdate")
        self._until("its end", limited=201, unlimited=201)  # before its ConfigMaps go: that would refuse everything
        self._plane.kubectl("delete", "--ignore-not-found", "--filename=-", stdin=self._rendered)
        for name in (self.home, self.tenant, self.free):
            self._plane.kubectl("delete", "namespace", name, "--wait=false")

    def _until(self, what: str, *, limited: int, unlimited: int) -> None:
        def codes() -> tuple[int, int]:
            answers = [api.create(put(good(), "spec.training.nodes", 3)) for api in (self.limited, self.unlimited)]
            return answers[0].status_code, answers[1].status_code

        until(what, lambda: codes() == (limited, unlimited))

    def limits(self, data: dict[str, str]) -> None:
        """Changes the tenant's ConfigMap by hand."""
        patch = json.dumps({"data": data})
        self._plane.kubectl("patch", "configmap", self.configmap, "-n", self.home, "--type=merge", f"--patch={patch}")

    def variables(self) -> list[Raw]:
        policy = f"{self.release}-skillupdate"
        shown = self._plane.kubectl("get", "validatingadmissionpolicy", policy, "--output=json")
        return json.loads(shown)["spec"]["variables"]

    def status(self) -> Raw:
        policy = f"{self.release}-skillupdate"
        shown = self._plane.kubectl("get", "validatingadmissionpolicy", policy, "--output=json")
        return json.loads(shown).get("status", {})


@pytest.fixture(scope="module")
def policy(crd: ControlPlane, client: httpx.Client) -> Iterator[Policy]:
    policy = Policy(crd, client)
    policy.apply()
    yield policy
    policy.remove()


def good() -> Raw:
    """An update at the edge of every limit."""
    update = example("full")
    update["metadata"]["name"] = f"u{uuid4().hex[:8]}"
    put(update, "spec.model.uri", "s3://models")
    put(update, "spec.serving.analysis", REMOVED)
    template = update["spec"]["training"].pop("template", {})
    update["spec"]["training"]["template"] = {key: template[key] for key in LIMITS["templateFields"] if key in template}
    put(update, "spec.training.nodes", 2)
    put(update, "spec.training.gpusPerNode", 4)
    put(update, "spec.training.template.image", "registry.example.com/trainer@sha256:" + "0" * 64)
    put(update, "spec.gates.approval", "Manual")
    put(update, "spec.approved", False)
    return put(update, "spec.storage.endpoint", "http://s3.storage.svc:9000")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"spec.storage.endpoint": REMOVED},  # aws
        {IMAGE: REMOVED},
        {IMAGE: "registry.example.com/trainer:1"},
        {IMAGE: "registry.example.com/trusted/any/thing"},
        {"spec.model.base": REMOVED, "spec.data.retention": REMOVED},
    ],
    ids=str,
)
def test_what_keeps_the_limits_is_admitted(policy: Policy, change: Raw):
    policy.limited.created(changed(change))


REFUSED: dict[str, tuple[Raw, str, str]] = {
    "bucket of the model": ({"spec.model.uri": "s3://model"}, 'spec.model.uri is "s3://model"', "uriPrefixes"),
    "bucket with a longer name": ({"spec.model.uri": "s3://models2/a"}, "s3://models2/a", "which is not under"),
    "base": ({"spec.model.base": "file:///x"}, 'spec.model.base is "file:///x"', "s3://models or s3://skills/"),
    "data": ({"spec.data.train": "s3://mine/a.jsonl"}, "spec.data.train is", "write a place there"),
    "held out": ({"spec.data.heldOut.uri": "s3://mine/a.jsonl"}, "spec.data.heldOut.uri is", "uriPrefixes"),
    "retention": ({"spec.data.retention": [MINE]}, 'spec.data.retention[qa].uri is "s3://mine/a.jsonl"', "uriPrefixes"),
    "rehearsal": (
        {"spec.data.rehearsal": {"uris": ["s3://mine/train.jsonl"]}},
        'spec.data.rehearsal.uris is "s3://mine/train.jsonl"',
        "uriPrefixes",
    ),
    "way up": ({"spec.data.train": "s3://skills/../a.jsonl"}, "s3://skills/../a.jsonl", "uriPrefixes"),
    "way up, percent-encoded": ({"spec.model.uri": "file:///a/%2e%2e/b"}, "file:///a/%2e%2e/b", "uriPrefixes"),
    "way up, around a line end": ({"spec.model.uri": "s3://models/.\n./b"}, "spec.model.uri is", "uriPrefixes"),
    "secret": ({"spec.storage.secretRef": {"name": "db"}}, 'secretRef.name is "db"', "s3-creds"),
    "service account": ({"spec.storage.serviceAccountName": "ci"}, 'serviceAccountName is "ci"', "skill-trainer"),
    "host folder": ({f"{TEMPLATE}.volumes": [HOST]}, "template.volumes may not be written", "templateFields of"),
    "token": ({f"{TEMPLATE}.volumes": [TOKEN]}, "template.volumes may not be written", "templateFields of"),
    "program": ({f"{TEMPLATE}.env": [PROGRAM]}, "template.env may not be written", "only labels or annotations"),
    "place": ({f"{TEMPLATE}.priorityClassName": "high"}, "template.priorityClassName may not", "leave it out"),
    "image": ({IMAGE: "evil/trainer:1"}, 'spec.training.template.image is "evil/trainer:1"', "leave image out"),
    "image with a longer name": ({IMAGE: "registry.example.com/trainer2"}, "example.com/trainer2", "images of"),
    "nodes": ({"spec.training.nodes": 3, "spec.training.gpusPerNode": 1}, "spec.training.nodes is 3", "at most 2"),
    "GPUs": ({"spec.training.gpusPerNode": 5}, "nodes times gpusPerNode is 10 GPUs", "at most 8"),
    "GPUs by another name": ({"spec.training.resources.limits": {"amd.com/gpu": 8}}, "has amd.com/gpu", "gpuResource"),
    "approval": ({"spec.gates.approval": "Automatic"}, 'spec.gates.approval is "Automatic"', "write approval: Manual"),
    "approved in advance": ({"spec.approved": True}, "spec.approved is true", "leave it out"),
    "analysis": ({"spec.serving.analysis": ANALYSIS}, "spec.serving.analysis asks the Prometheus", "leave it out"),
    "endpoint": ({"spec.storage.endpoint": "http://mine"}, 'spec.storage.endpoint is "http://mine"', "aws or http://s3"),
}  # fmt: skip


def changed(change: Raw) -> Raw:
    update = good()
    for path, value in change.items():
        put(update, path, value)
    return update


@pytest.mark.parametrize(("change", "value", "way_out"), REFUSED.values(), ids=list(REFUSED))
def test_what_goes_beyond_a_limit_is_refused_with_the_value_and_the_way_out(
    policy: Policy, change: Raw, value: str, way_out: str
):
    answer = policy.limited.create(changed(change))
    assert answer.status_code == 403, answer.text
    message = answer.json()["message"]
    assert value in message
    assert way_out in message
    assert f"of ConfigMap {policy.home}/{policy.configmap}" in message


@pytest.mark.parametrize("change", [change for change, *_ in REFUSED.values()], ids=list(REFUSED))
def test_another_namespace_is_not_limited(policy: Policy, change: Raw):
    policy.unlimited.created(changed(change))


def test_expressions_have_the_types_of_the_crd(policy: Policy):
    """The API server has checked every expression against the schema of SkillUpdates."""
    until("the type check", lambda: "typeChecking" in policy.status() or "observedGeneration" in policy.status())
    assert not policy.status().get("typeChecking", {}).get("expressionWarnings")


def test_every_field_of_the_template_can_be_limited(policy: Policy):
    """A field that the CRD gets and the policy does not know would be open to all."""
    (limited,) = {variable["expression"] for variable in policy.variables() if variable["name"] == "strayFields"}
    for field in TEMPLATE_FIELDS.keys() - {"image"}:
        assert f"template.{field})" in limited, f"templateFields of the admission policy cannot limit {field}"


@pytest.fixture
def relimited(policy: Policy) -> Iterator[Callable[[dict[str, str]], None]]:
    """Changes limits by hand, until the end of the test."""
    yield policy.limits
    policy.limits({"maxGpus": str(LIMITS["maxGpus"]), "approval": "Manual", "maxGPUs": None})  # type: ignore[dict-item]
    until("the limits as before", lambda: policy.limited.create(good()).status_code == 201)


@pytest.mark.parametrize(
    ("data", "words"),
    [({"maxGpus": "many"}, 'is "many"'), ({"maxGPUs": "4"}, "limit maxGPUs"), ({"approval": "Yes"}, "limit approval")],
    ids=str,
)
def test_limit_that_cannot_be_read_admits_nothing_and_says_so(policy: Policy, relimited, data, words: str):
    relimited(data)
    until("the change", lambda: policy.limited.create(good()).status_code == 403)
    message = policy.limited.create(good()).json()["message"]
    assert words in message
    assert "an administrator corrects or removes it" in message


def test_update_from_before_a_limit_can_still_be_ended(policy: Policy, client: httpx.Client, relimited):
    api = Api(client, policy.tenant)
    update = api.created(good())
    name = update["metadata"]["name"]
    relimited({"maxGpus": "1"})
    until("the change", lambda: policy.limited.create(good()).status_code == 403)
    for patch in (
        {"metadata": {"finalizers": ["sdft.dev/rollout"]}},
        {"spec": {"suspend": True}},
        {"spec": {"approved": True}},
    ):
        assert api.change(name, patch).status_code == 200
    image = api.change(name, {"spec": {"training": {"template": {"image": "evil/trainer:1"}}}})
    assert image.status_code == 403, image.text
    assert api.change(name, {"metadata": {"finalizers": None}}).status_code == 200
