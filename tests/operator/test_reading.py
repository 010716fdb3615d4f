"""Facts from raw objects: the odd shapes that real ones have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from skill_operator import reading
from skill_operator.api import to_rfc3339, to_unix
from skill_operator.observed import Target
from skill_operator.targets import kind as kinds
from skill_operator.targets.read import kind_of, target
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD


def read(deployment: raw.Raw, pods: Iterable[raw.Raw] = ()) -> Target:
    kind = kind_of("Deployment")
    return target(kind, deployment, kind.read(deployment, None), pods, "server")


def test_deployment_counts_as_settled_only_when_nothing_is_left_of_the_old():
    assert read(raw.deployment()).is_settled
    for change in (
        {"status": {"updatedReplicas": 1}},
        {"status": {"replicas": 3}},
        {"status": {"availableReplicas": 1}},
        {"status": {"observedGeneration": 0}},
        {"spec": {"paused": True}},
        {"spec": {"replicas": 3}},
    ):
        seen = read(raw.merged(raw.deployment(), change))
        assert not seen.is_settled, change
        assert seen.state


def test_newest_writer_of_the_annotation_is_named():
    fields = {"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:sdft.dev/weights": {}}}}}}
    managed = [
        {"manager": "old", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields},
        {"manager": "argocd", "time": "2026-02-01T00:00:00Z", "fieldsV1": fields},
        {"manager": "later", "time": "2026-03-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    seen = read(raw.merged(raw.deployment(), {"metadata": {"managedFields": managed}}))
    assert seen.weights_manager == "argocd"


def test_failed_fetch_that_is_started_again_is_read_from_its_last_state():
    status = raw.serving_status("", ready=False)
    status["initContainerStatuses"][0] |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": raw.terminated(1, raw.fetch_failed("DigestMismatch"))},
    }
    seen = read(raw.deployment(), [raw.serving_pod(0, CANDIDATE, status)])
    assert seen.pods[0].fetch is not None
    assert seen.pods[0].fetch.reason == "DigestMismatch"


@pytest.mark.parametrize("message", ["", "not JSON", '{"outcome": 7}', '["list"]'])
def test_message_that_is_no_document_is_no_proof(message: str):
    seen = read(raw.deployment(), [raw.serving_pod(0, CANDIDATE, raw.serving_status(message))])
    assert seen.pods[0].fetch is None


@pytest.mark.parametrize(
    ("containers", "ports"),
    [
        ([{"readinessProbe": {"httpGet": {"scheme": "HTTPS", "port": 8000}}}], {8000}),
        ([{"ports": [{"name": "api", "containerPort": 8443}],
           "livenessProbe": {"httpGet": {"scheme": "HTTPS", "port": "api"}}}], {8443}),
        ([{}, {"startupProbe": {"httpGet": {"scheme": "HTTPS", "port": 8443}}}], {8443}),
        ([{"readinessProbe": {"httpGet": {"scheme": "HTTP", "port": 8000}}}], set()),
        ([{"readinessProbe": {"httpGet": {"scheme": "HTTPS", "port": "gone"}}}], set()),
        ([{"readinessProbe": {"tcpSocket": {"port": 8000}}}], set()),
    ],
    ids=["number", "name", "proxy beside it", "plain", "no such name", "no HTTP"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_ports_that_the_kubelet_asks_over_tls_end_tls(kind: str, containers: list[raw.Raw], ports: set[int]):
    pod = raw.serving_pod(0, CANDIDATE, raw.serving_status("")) | {"spec": {kind: containers}}
    assert read(raw.deployment(), [pod]).pods[0].tls_ports == ports


def test_pods_of_a_job_come_newest_first_and_strangers_not_at_all():
    job = {
        "metadata": {"name": "j", "uid": "job", "labels": {"sdft.dev/step": "train", "sdft.dev/run": "2"}},
        "spec": {},
    }
    pods = [
        {
            "metadata": {"name": name, "uid": name, "creationTimestamp": to_rfc3339(time),
                         "ownerReferences": [{"uid": owner}]},
            "status": raw.said(raw.outcome(raw.Step.TRAIN)),
        }
        for name, time, owner in [("a", 1, "job"), ("b", 2, "job"), ("c", 3, "another")]
    ]  # fmt: skip
    (seen,) = reading.step_jobs([job], pods)
    assert ([pod.name for pod in seen.pods], seen.run, seen.step) == (["b", "a"], 2, "train")
    assert seen.pods[0].outcome is not None
    assert seen.pods[0].outcome.digest == CHILD[1]


@pytest.mark.parametrize(
    ("selector", "query"),
    [
        ({"matchLabels": {"app": "llm", "tier": "x"}}, "app=llm,tier=x"),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, "a in (1,2)"),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, "a notin (1)"),
        ({"matchLabels": {"b": "c"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}, "b=c,a"),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, "!a"),
    ],
)
def test_selector_as_a_query(selector: dict[str, Any], query: str):
    assert kinds.selector(selector) == query


@pytest.mark.parametrize(
    ("time", "seconds"), [("1970-01-01T00:01:00Z", 60.0), ("", None), (None, None), ("soon", None)]
)
def test_times(time: str | None, seconds: float | None):
    assert to_unix(time) == seconds
