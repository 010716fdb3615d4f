"""Pods that wait for ever while they are told no version: a first rollout is not begun onto them."""

from __future__ import annotations

import pytest

from skill_operator.targets.read import kind_of, target
from tests.operator import raw
from tests.operator.raw import PREVIOUS, Raw
from tests.operator.seen import truth, why
from tests.operator.sim import Sim

WEIGHTS = {"name": "SKILL_WEIGHTS", "valueFrom": {"fieldRef": {"fieldPath": raw.WEIGHTS_FIELD_PATH}}}
DEFAULT = {"name": "SKILL_DEFAULT", "value": raw.MODEL}
FROM_SECRET = {"name": "SKILL_DEFAULT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "default"}}}


def fetcher(*variables: Raw, **changes: object) -> Raw:
    return {"name": "weights", "args": ["fetch", "--to", "/weights"], "env": [WEIGHTS, *variables]} | changes


def waiting(kind: str, document: Raw, behind: Raw | None = None) -> str:
    of = kind_of(kind)
    return target(of, document, of.read(document, behind), [], "server").waiting_fetcher


def deployment(container: Raw, *, weights: str = "") -> Raw:
    document = raw.deployment(weights=weights)
    document["spec"]["template"]["spec"]["initContainers"] = [container]
    return document


@pytest.mark.parametrize(
    ("container", "waits"),
    [
        (fetcher(), True),
        (fetcher({"name": "SKILL_DEFAULT", "value": ""}), True),
        (fetcher(DEFAULT), False),
        (fetcher(FROM_SECRET), False),
        (fetcher(envFrom=[{"secretRef": {"name": "s3"}}]), False),
        (fetcher(args=["fetch", "--to", "/weights", "--default", raw.MODEL]), False),
        (fetcher(args=["fetch", "--to", "/weights", f"--default={raw.MODEL}"]), False),
        ({"name": "own", "env": [WEIGHTS | {"name": "OUR_OWN_NAME"}]}, False),
    ],
    ids=["none", "empty", "value", "secret", "envFrom", "flag", "flag with =", "somebody's own"],
)
def test_fetch_container_waits_where_nothing_may_be_its_default(container: Raw, *, waits: bool):
    assert bool(waiting("Deployment", deployment(container))) == waits


def test_every_template_of_a_group_needs_a_default():
    with_default, without = (deployment(fetcher(*more))["spec"]["template"] for more in ([DEFAULT], []))
    status: Raw = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "conditions": []}
    for leader, worker in ((with_default, without), (without, with_default), (with_default, with_default)):
        templates = {"size": 2, "leaderTemplate": leader, "workerTemplate": worker}
        spec = {"replicas": 2, "leaderWorkerTemplate": templates}
        document = {"metadata": {"name": "support-llm"}, "spec": spec, "status": status}
        assert bool(waiting("LeaderWorkerSet", document)) == (without in (leader, worker))


def test_storage_initializer_of_kserve_has_always_a_default():
    source = {"internal.serving.kserve.io/storage-initializer-sourceuri": "skill://models/support-llm"}
    behind = raw.deployment()
    behind["spec"]["template"] |= {"metadata": {"annotations": source}, "spec": {"containers": [{"name": "server"}]}}
    service: Raw = {"metadata": {"name": "support-llm"}, "spec": {"predictor": {}}, "status": {}}
    assert waiting("InferenceService", service, behind) == ""
    own = fetcher()
    behind["spec"]["template"] = {"metadata": {}, "spec": {"initContainers": [own], "containers": []}}
    service["spec"]["predictor"] = {"initContainers": [own]}
    assert waiting("InferenceService", service, behind) == "weights"


def test_first_rollout_onto_pods_that_wait_stalls_with_the_line_to_paste_and_goes_on_with_it():
    sim = Sim(deployment=deployment(fetcher()))
    sim.roll(message="", ready=False)
    sim.until_published()
    reason, message = why(sim, "Stalled")
    assert (reason, sim.annotation, sim.status.rollout) == ("NoPrevious", "", None)
    assert '- {name: SKILL_DEFAULT, value: "s3://models/support-llm"}' in message
    sim.now += 7200
    sim.settle()
    assert (truth(sim)["Succeeded"], why(sim)[0]) == ("Unknown", "NoPrevious"), "a person is waited for"
    assert sim.deployment is not None
    sim.deployment["spec"]["template"]["spec"]["initContainers"] = [fetcher(DEFAULT)]
    sim.roll(digest=raw.PARENT[1])
    sim.settle()
    assert sim.annotation == raw.CANDIDATE


def test_target_that_has_a_version_needs_no_default():
    sim = Sim(deployment=deployment(fetcher(), weights=PREVIOUS))
    sim.until_rolled()
    assert sim.status.phase == "Soaking"
