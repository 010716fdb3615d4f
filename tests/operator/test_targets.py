"""What each kind of serving target says, and what becomes of it: unfit, given up, held, out of reach."""

from __future__ import annotations

from typing import Any

import pytest

from skill_operator.actions import DeletePod
from skill_operator.observed import Target
from skill_operator.targets.read import kind_of, target
from tests.operator import raw
from tests.operator.raw import CANDIDATE, PARENT, PREVIOUS, Raw, merged
from tests.operator.seen import assert_failed, served, truth, why


def read(kind: str, document: Raw, pods: list[Raw] | None = None, behind: Raw | None = None) -> Target:
    of = kind_of(kind)
    return target(of, document, of.read(document, behind), pods or [], "server")


# -- StatefulSet ----------------------------------------------------------------------------------------------------


def stateful_set(**changes: Any) -> Raw:
    counts = {"observedGeneration": 1, "replicas": 2, "availableReplicas": 2}
    status = counts | {"currentRevision": "a", "updateRevision": "a"}
    document = raw.deployment(weights=CANDIDATE) | {"kind": "StatefulSet", "status": status}
    return merged(document, changes)


def test_stateful_set_is_settled_when_its_newest_revision_is_everywhere():
    seen = read("StatefulSet", stateful_set())
    assert (seen.is_settled, seen.weights, seen.is_wired, seen.containers) == (True, CANDIDATE, True, ("server",))
    for change in (
        {"status": {"updateRevision": "b", "updatedReplicas": 1}},
        {"status": {"availableReplicas": 1}},
        {"status": {"replicas": 1}},
        {"metadata": {"generation": 2}},
        {"spec": {"replicas": 3}},
    ):
        seen = read("StatefulSet", stateful_set(**change))
        assert (seen.is_settled, bool(seen.state)) == (False, True), change


@pytest.mark.parametrize(
    ("strategy", "word"),
    [
        ({"type": "OnDelete"}, "RollingUpdate"),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}, "partition 1"),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, ""),
    ],
)
def test_stateful_set_that_would_keep_old_pods_is_unfit(strategy: Raw, word: str):
    unfit = read("StatefulSet", stateful_set(spec={"updateStrategy": strategy})).unfit
    assert (word in unfit, bool(unfit)) == (True, bool(word))


def test_stateful_set_keeps_broken_pods_unless_it_manages_them_in_parallel():
    assert read("StatefulSet", stateful_set()).keeps_broken_pods
    assert not read("StatefulSet", stateful_set(spec={"podManagementPolicy": "Parallel"})).keeps_broken_pods


# -- LeaderWorkerSet ------------------------------------------------------------------------------------------------


def leader_worker_set(**changes: Any) -> Raw:
    template = raw.deployment(weights=CANDIDATE)["spec"]["template"]
    counts = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    document = {
        "metadata": {"name": "support-llm"},
        "spec": {
            "replicas": 2,
            "leaderWorkerTemplate": {"size": 3, "leaderTemplate": template, "workerTemplate": template},
        },
        "status": counts | {"conditions": [{"type": "Available", "status": "True"}]},
    }
    return merged(document, changes)


def group(name: str, template: Raw) -> Raw:
    return {"spec": {"leaderWorkerTemplate": {name: template}}}


def test_leader_worker_set_has_the_annotation_in_each_of_its_templates():
    seen = read("LeaderWorkerSet", leader_worker_set())
    assert (seen.weights, seen.is_wired, seen.replicas, seen.is_settled) == (CANDIDATE, True, 6, True)
    assert [path[2] for path in seen.place.paths] == ["leaderTemplate", "workerTemplate"]
    alone = leader_worker_set()
    del alone["spec"]["leaderWorkerTemplate"]["leaderTemplate"]  # then leaders are made from the workers'
    assert [path[2] for path in read("LeaderWorkerSet", alone).place.paths] == ["workerTemplate"]


def test_leader_worker_set_whose_templates_differ_has_no_version():
    apart = leader_worker_set(**group("workerTemplate", {"metadata": {"annotations": {"sdft.dev/weights": "x"}}}))
    seen = read("LeaderWorkerSet", apart)
    assert seen.weights not in {CANDIDATE, "x"}
    assert CANDIDATE in seen.weights


def test_leader_worker_set_is_wired_only_where_its_workers_are():
    loose = leader_worker_set(**group("workerTemplate", {"spec": {"initContainers": []}}))
    assert not read("LeaderWorkerSet", loose).is_wired


def test_workers_serve_and_do_not_answer():
    key, ready = "leaderworkerset.sigs.k8s.io/worker-index", raw.serving_status("")
    pods = [merged(raw.serving_pod(n, "", ready), {"metadata": {"labels": {key: str(n)}}}) for n in (0, 1)]
    assert [pod.answers for pod in read("LeaderWorkerSet", leader_worker_set(), pods).pods] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"updatedReplicas": 1}},
        {"status": {"readyReplicas": 1}},
        {"status": {"replicas": 3}},
        {"status": {"conditions": [{"type": "Available", "status": "False"}]}},
        {"spec": {"replicas": 0}},
    ],
)
def test_leader_worker_set_on_its_way_is_not_settled(change: Raw):
    seen = read("LeaderWorkerSet", leader_worker_set(**change))
    assert (seen.is_settled, bool(seen.state)) == (False, True)


def test_leader_worker_set_with_a_partition_is_unfit():
    partition = {"rolloutStrategy": {"rollingUpdateConfiguration": {"partition": 1}}}
    assert "partition 1" in read("LeaderWorkerSet", leader_worker_set(spec=partition)).unfit
    assert read("LeaderWorkerSet", leader_worker_set()).unfit == ""


# -- Rollout --------------------------------------------------------------------------------------------------------


def rollout(**changes: Any) -> Raw:
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    status = counts | {"observedGeneration": "1", "phase": "Healthy", "stableRS": "a", "currentPodHash": "a"}
    return merged(raw.deployment(weights=CANDIDATE) | {"kind": "Rollout", "status": status}, changes)


def by_reference(**changes: Any) -> Raw:
    document = rollout()
    del document["spec"]["template"], document["spec"]["selector"]
    document["metadata"]["annotations"] = {"rollout.argoproj.io/workload-generation": "1"}
    document["status"]["workloadObservedGeneration"] = "1"
    document["spec"]["workloadRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "behind"}
    return merged(document, changes)


def behind(**changes: Any) -> Raw:
    return merged(raw.deployment(weights=CANDIDATE, replicas=0), {"metadata": {"name": "behind"}} | changes)


def test_rollout_is_settled_when_it_is_healthy_and_nothing_old_is_left():
    assert read("Rollout", rollout()).is_settled
    for change in (
        {"metadata": {"generation": 2}},
        {"status": {"phase": "Progressing"}},
        {"status": {"replicas": 3}},
        {"status": {"stableRS": "b"}},
        {"status": {"controllerPause": True}},
    ):
        seen = read("Rollout", rollout(**change))
        assert (seen.is_settled, bool(seen.state), seen.held, seen.given_up) == (False, True, "", ""), change


def test_pause_of_a_rollout_is_named_with_its_step_and_how_to_go_on():
    steps = {"strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}}
    paused = {"phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1}
    seen = read("Rollout", rollout(spec=steps, status=paused))
    assert (seen.held, seen.given_up) == ("CanaryPauseStep", "")
    assert "at step 2 of 2: CanaryPauseStep (`kubectl argo rollouts promote support-llm` goes on)" in seen.state


def test_what_a_rollout_says_of_an_earlier_form_counts_for_nothing():
    degraded = {"phase": "Degraded", "message": "RolloutAborted: update to revision 2"}
    assert "RolloutAborted" in read("Rollout", rollout(status=degraded)).given_up
    assert read("Rollout", rollout(metadata={"generation": 2}, status=degraded)).given_up == ""


def test_rollout_of_a_deployment_is_annotated_there():
    seen = read("Rollout", by_reference(), behind=behind())
    assert (seen.title, seen.place.title, seen.weights) == ("Rollout support-llm", "Deployment behind", CANDIDATE)
    assert (seen.is_wired, seen.is_settled, seen.unfit) == (True, True, "")
    newer = behind(metadata={"name": "behind", "generation": 2})
    assert not read("Rollout", by_reference(), behind=newer).is_settled


def test_rollout_by_a_reference_that_is_no_use_is_unfit():
    assert "does not exist" in read("Rollout", by_reference()).unfit
    assert "3 pods of its own" in read("Rollout", by_reference(), behind=behind(spec={"replicas": 3})).unfit
    other = by_reference(spec={"workloadRef": {"kind": "PodTemplate"}})
    assert "only a Deployment" in read("Rollout", other).unfit


# -- InferenceService -----------------------------------------------------------------------------------------------

SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"


def inference_service(**changes: Any) -> Raw:
    document = {
        "metadata": {"name": "support-llm"},
        "spec": {"predictor": {"model": {}, "annotations": {"sdft.dev/weights": CANDIDATE}}},
        "status": {"deploymentMode": "Standard", "conditions": [{"type": "PredictorReady", "status": "True"}]},
    }
    return merged(document, changes)


def predictor(*, weights: str = CANDIDATE, source: str = "", wired: bool = True) -> Raw:
    """The Deployment that KServe makes."""
    document = raw.deployment(weights=weights, wired=wired)
    document["metadata"]["name"] = "support-llm-predictor"
    document["spec"]["template"]["metadata"].setdefault("annotations", {})[SOURCE] = source
    return document


def test_inference_service_is_settled_when_its_deployment_is_told_and_stands_still():
    seen = read("InferenceService", inference_service(), behind=predictor())
    assert (seen.is_settled, seen.weights, seen.replicas, seen.unfit) == (True, CANDIDATE, 2, "")
    assert (seen.place.title, seen.place.paths) == (seen.title, (("spec", "predictor", "annotations"),))
    late = read("InferenceService", inference_service(), behind=predictor(weights=PREVIOUS))
    assert (late.is_settled, "not told" in late.state) == (False, True)
    unready = inference_service(status={"conditions": [{"type": "PredictorReady", "status": "False"}]})
    assert not read("InferenceService", unready, behind=predictor()).is_settled


@pytest.mark.parametrize(
    ("behind", "is_wired"),
    [
        (predictor(source="skill://models/support-llm", wired=False), True),
        (predictor(source="s3://models/support-llm", wired=False), False),
        (predictor(), True),
    ],
    ids=["by the storage container", "by KServe's own initializer", "by an init container of its own"],
)
def test_inference_service_is_wired_by_its_storage_uri_or_a_container_of_its_own(behind: Raw, *, is_wired: bool):
    assert read("InferenceService", inference_service(), behind=behind).is_wired == is_wired


def test_what_the_storage_initializer_says_is_read():
    pod = raw.serving_pod(0, CANDIDATE, raw.serving_status(raw.fetched(CANDIDATE, raw.CHILD[1])))
    pod["status"]["initContainerStatuses"][0]["name"] = "storage-initializer"
    behind = predictor(source="skill://models/support-llm", wired=False)
    (seen,) = read("InferenceService", inference_service(), [pod], behind).pods
    assert seen.fetch is not None
    assert seen.fetch.digest == raw.CHILD[1]


def test_inference_service_without_a_deployment_is_unfit():
    assert "see its conditions" in read("InferenceService", inference_service()).unfit
    knative = inference_service(status={"deploymentMode": "Knative"})
    assert "deploymentMode: Standard" in read("InferenceService", knative).unfit
    several = inference_service(spec={"predictor": {"workerSpec": {}}})
    assert read("InferenceService", several, behind=predictor()).unfit == ""
    several["spec"]["predictor"]["workerSpec"] = {"pipelineParallelSize": 2}
    assert "workerSpec" in read("InferenceService", several, behind=predictor()).unfit


# -- no room, no pods ----------------------------------------------------------------------------------------------

IN_PLACE = "{maxSurge: 0, maxUnavailable: 1}"


ROUTED = {"trafficRouting": {"nginx": {"stableIngress": "llm"}}}
SURGING_GROUPS = {"rollingUpdateConfiguration": {"maxSurge": 1}}


def deployment(**changes: Any) -> Raw:
    return merged(raw.deployment(weights=CANDIDATE), changes)


def surging(*path: str) -> Raw:
    """A change of a spec that takes surge at this place to 0."""
    inner: Raw = {"maxSurge": 0}
    for step in reversed(path):
        inner = {step: inner}
    return inner


@pytest.mark.parametrize(
    ("kind", "document", "behind", "way_out"),
    [
        ("Deployment", deployment(), None, f"strategy: {{rollingUpdate: {IN_PLACE}}} in the Deployment"),
        ("Rollout", rollout(), None, f"strategy: {{canary: {IN_PLACE}}} in the Rollout"),
        ("Rollout", by_reference(), behind(), f"strategy: {{canary: {IN_PLACE}}} in the Rollout"),
        ("Rollout", rollout(spec={"strategy": {"blueGreen": {}}}), None, "has 2 new pods before the old ones go"),
        ("Rollout", rollout(spec={"strategy": {"canary": ROUTED}}), None, "dynamicStableScale: true in the Rollout"),
        ("InferenceService", inference_service(), predictor(), f"rollingUpdate: {IN_PLACE}}} in the InferenceService"),
        ("LeaderWorkerSet", leader_worker_set(spec={"rolloutStrategy": SURGING_GROUPS}), None,
         f"rolloutStrategy: {{rollingUpdateConfiguration: {IN_PLACE}}} in the LeaderWorkerSet"),
        ("LeaderWorkerSet", leader_worker_set(), None, "this LeaderWorkerSet adds no pod"),
        ("StatefulSet", stateful_set(), None, "this StatefulSet adds no pod"),
        ("Deployment", deployment(spec=surging("strategy", "rollingUpdate")), None, "this Deployment adds no pod"),
        ("Rollout", rollout(spec=surging("strategy", "canary")), None, "this Rollout adds no pod"),
    ],
)  # fmt: skip
def test_the_way_out_where_no_node_has_room_is_the_kind_s_own(
    kind: str, document: Raw, behind: Raw | None, way_out: str
):
    seen = read(kind, document, behind=behind)
    assert way_out in seen.room
    assert ("in the Deployment" in seen.room) == ("in the Deployment" in way_out)


def test_one_replica_that_is_replaced_in_place_is_an_outage():
    assert "outage" in read("Deployment", deployment(spec={"replicas": 1})).room
    assert "outage" not in read("Deployment", deployment()).room


def refused_pods(kind: str = "ReplicaFailure", reason: str = "FailedCreate", status: str = "True") -> Raw:
    """What a controller of ReplicaSets says of pods, or of a ReplicaSet, that it may not create."""
    said = {"type": kind, "status": status, "reason": reason, "message": "exceeded quota: team"}
    return {"status": {"conditions": [said | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}}


@pytest.mark.parametrize(
    ("kind", "document", "behind"),
    [
        ("Deployment", deployment(**refused_pods()), None),
        ("Rollout", rollout(**refused_pods()), None),
        ("Rollout", rollout(**refused_pods("Progressing", "ReplicaSetCreateError", "False")), None),
        ("InferenceService", inference_service(), merged(predictor(), refused_pods())),
    ],
)
def test_pods_that_may_not_be_created_are_seen_where_a_kind_says_so(kind: str, document: Raw, behind: Raw | None):
    seen = read(kind, document, behind=behind)
    assert (seen.uncreated, seen.uncreated_since) == ("exceeded quota: team", 1767225600.0)


def test_what_a_paused_rollout_said_of_its_pods_is_old():
    paused = merged(rollout(**refused_pods()), {"status": {"phase": "Paused"}})
    assert (read("Rollout", paused).uncreated, read("Rollout", rollout()).uncreated) == ("", "")


# -- what becomes of it ---------------------------------------------------------------------------------------------


def test_unfit_target_waits_for_a_person_before_anything_is_written():
    sim = served()
    sim.says = {"unfit": "its partition is 1: set 0"}
    sim.until_published()
    assert (why(sim, "Stalled")[0], sim.annotation, sim.status.rollout) == ("TargetUnfit", "", None)
    assert why(sim)[1] == "Deployment support-llm: its partition is 1: set 0"
    sim.says = {}
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_target_that_its_own_controller_gives_up_is_taken_back():
    sim = served()
    sim.until_published()
    sim.says = {"given_up": "was given up by its own controller: aborted"}
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", "")
    sim.says = {}
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "RolloutAborted", "aborted")


def test_target_that_was_given_up_before_is_no_fault_of_the_candidate():
    sim = served()
    sim.says = {"given_up": "was given up by its own controller", "is_settled": False, "state": "Degraded"}
    sim.until_published()
    assert (why(sim)[0], sim.annotation) == ("TargetBusy", "")


def test_time_does_not_run_while_the_target_holds_on_purpose():
    sim = served()
    sim.until_published()
    sim.says = {"held": "CanaryPauseStep", "is_settled": False, "state": "Paused"}
    for _ in range(5):
        sim.now += 1000
        sim.settle()
        assert sim.status.phase == "RollingOut"
    sim.says = {"is_settled": False, "state": "Progressing"}
    sim.now += 1801
    sim.settle()
    assert why(sim)[1].startswith("ProgressDeadline")


@pytest.mark.parametrize("keeps", [False, True])
def test_broken_pods_go_on_the_way_back_where_nothing_else_would_replace_them(*, keeps: bool):
    sim = served()
    sim.says = {"keeps_broken_pods": keeps}
    sim.until_published()
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.serving[1]["metadata"]["annotations"] = {}  # the other one has been left as it was
    sim.settle()
    deleted = [action.name for action in sim.done if isinstance(action, DeletePod)]
    assert deleted == (["support-llm-0"] if keeps else [])


def test_kind_that_cannot_be_seen_is_waited_for_and_nothing_is_concluded():
    sim = served()
    sim.out_of_reach = "this cluster does not serve LeaderWorkerSet: install it"
    sim.until_published()
    assert (sim.status.phase, why(sim, "Stalled")) == ("RollingOut", ("TargetOutOfReach", sim.out_of_reach))
    assert truth(sim)["Succeeded"] == "Unknown"
    sim.out_of_reach = ""
    sim.until_rolled()
    sim.out_of_reach = "the operator may not read it"
    sim.settle()
    assert why(sim, "Stalled")[0] == "TargetOutOfReach"
    sim.out_of_reach = ""
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_deletion_waits_for_a_target_that_cannot_be_seen_only_for_a_while():
    sim = served()
    sim.until_rolled()
    sim.out_of_reach = "the operator may not read it"
    sim.delete()
    sim.settle()
    assert sim.body["metadata"]["finalizers"]
    sim.now += 1801
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_way_back_waits_for_a_target_that_cannot_be_seen():
    sim = served()
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.out_of_reach = "the operator may not read it"
    sim.finish("revert")
    sim.settle()
    assert (sim.status.phase, why(sim)[0], sim.annotation) == ("Reverting", "TargetOutOfReach", CANDIDATE)
    sim.out_of_reach = ""
    sim.settle()
    assert sim.annotation == ""
