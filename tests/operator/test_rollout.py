"""Rollouts: written down, applied, proved, promoted; or taken back."""

from __future__ import annotations

from typing import Any

import pytest

from skill_operator.actions import (
    ApplyWeights,
    Refusal,
)
from skill_operator.api import FINALIZER, Reason
from skill_operator.conditions import is_settled
from tests.operator import raw
from tests.operator.raw import CANDIDATE, PARENT, PREVIOUS
from tests.operator.seen import assert_failed, neighbour, promote_config, served, truth, why
from tests.operator.sim import Sim


def test_rollout_writes_down_what_to_go_back_to_before_it_touches_anything():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.finish("train")
    while sim.status.rollout is None:
        assert sim.annotation == PREVIOUS
        sim.look()
    assert sim.annotation == PREVIOUS
    assert (sim.status.rollout.previous, sim.status.rollout.previous_digest) == (PREVIOUS, PARENT[1])
    assert sim.body["metadata"]["finalizers"] == [FINALIZER]
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_straight_rollout_ends_promoted_and_lets_go():
    sim = served()
    sim.until_rolled()
    assert sim.status.rollout is not None
    assert (sim.status.rollout.pods_verified, sim.status.phase) == ("2/2", "Soaking")
    assert not sim.has_job("promote")
    sim.now += 31
    sim.settle()
    config = promote_config(sim)
    assert [(pod.name, pod.url) for pod in config.pods] == [
        ("support-llm-0", "http://127.0.0.1:8000"), ("support-llm-1", "http://127.0.0.1:8000"),
    ]  # fmt: skip
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, truth(sim)["Ready"], truth(sim)["RolledOut"]) == ("Succeeded", "True", "True")
    assert (sim.body["metadata"]["finalizers"], sim.annotation) == ([], CANDIDATE)
    assert is_settled(sim.body)


def test_pods_are_asked_as_their_probes_ask_them():
    """Each by its own: a template may change meanwhile. What another port speaks says nothing."""
    sim = served()
    sim.until_rolled()
    for pod, port in zip(sim.serving, (8000, 9000), strict=True):
        probe = {"httpGet": {"scheme": "HTTPS", "port": port}}
        pod["spec"] = {"containers": [{"name": "server", "readinessProbe": probe}]}
    sim.now += 31
    sim.settle()
    assert [pod.url for pod in promote_config(sim).pods] == ["https://127.0.0.1:8000", "http://127.0.0.1:8000"]


def test_old_pods_do_not_count_as_served():
    sim = served()
    sim.until_published()
    sim.settle()
    assert sim.status.rollout is not None
    assert sim.status.rollout.pods_verified == "0/2"
    assert sim.status.rollout.verified_at is None


def test_evicted_pods_that_are_left_behind_count_for_nothing():
    sim = served()
    sim.serving.append(raw.serving_pod(8, "", {"phase": "Failed", "reason": "Evicted"}))
    sim.until_published()
    assert sim.annotation == CANDIDATE
    sim.roll()
    sim.serving.append(raw.serving_pod(9, CANDIDATE, {"phase": "Failed", "reason": "Evicted"}))
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_ready_pod_with_another_digest_does_not_count():
    sim = served()
    sim.until_published()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.status.rollout is not None
    assert (sim.status.rollout.pods_verified, sim.status.phase) == ("0/2", "RollingOut")


def test_pod_that_is_lost_in_the_soak_begins_it_anew():
    sim = served()
    sim.until_rolled()
    lost = sim.serving.pop()
    sim.now += 29
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.serving.append(lost)
    sim.now += 5
    sim.settle()
    sim.now += 29
    sim.settle()
    assert (sim.status.phase, sim.has_job("promote")) == ("Soaking", False)


def not_wired(sim: Sim) -> None:
    sim.deployment = raw.deployment(wired=False)


def missing(sim: Sim) -> None:
    sim.deployment = None


def other_container(sim: Sim) -> None:
    assert sim.deployment is not None
    sim.deployment["spec"]["template"]["spec"]["containers"][0]["name"] = "vllm"


@pytest.mark.parametrize(
    ("break_it", "reason", "word"),
    [
        (missing, "TargetMissing", "support-llm"),
        (not_wired, "NotWired", "fieldRef"),
        (other_container, "ContainerMissing", "vllm"),
    ],
)
def test_unfit_target_stalls_until_a_person_has_mended_it(break_it: Any, reason: str, word: str):
    sim = served()
    mended = sim.deployment
    break_it(sim)
    if reason == "ContainerMissing":
        mended = raw.deployment()
    sim.until_published()
    assert (why(sim, "Stalled")[0], truth(sim)["Succeeded"]) == (reason, "Unknown")
    assert word in why(sim)[1]
    assert (truth(sim).get("NotWired") == "True") == (reason == "NotWired")
    assert not any(isinstance(action, ApplyWeights) for action in sim.done)
    sim.deployment = mended
    sim.settle()
    assert "Stalled" not in truth(sim)
    assert sim.annotation == CANDIDATE


def test_busy_target_is_waited_for_until_the_deadline():
    sim = served()
    assert sim.deployment is not None
    sim.deployment["status"]["availableReplicas"] = 1
    sim.until_published()
    assert why(sim)[0] == "TargetBusy"
    assert truth(sim)["TargetBusy"] == "True"
    sim.now += 1801
    sim.settle()
    assert_failed(sim, "Failed", "TargetBusy", "1 available")


def test_target_that_another_update_rolls_is_waited_for():
    sim = served()
    sim.neighbours = (neighbour(model="s3://models/another", rolling="team/Deployment/support-llm"),)
    sim.until_published()
    assert why(sim)[0] == "TargetBusy"
    assert "team/other" in why(sim)[1]


def test_annotation_of_another_manager_is_never_taken():
    sim = served()
    refusal = Refusal(ApplyWeights(raw.PLACE, CANDIDATE), Reason.GITOPS_CONFLICT, "belongs to argocd")
    sim.refuse[ApplyWeights] = refusal
    sim.until_published()
    assert_failed(sim, "Failed", "GitOpsConflict", "argocd")
    assert truth(sim)["GitOpsConflict"] == "True"


def test_annotation_that_is_not_allowed_stalls_until_it_is():
    sim = served()
    refusal = Refusal(ApplyWeights(raw.PLACE, CANDIDATE), Reason.CREATE_REFUSED, "admission webhook denied it")
    sim.refuse[ApplyWeights] = refusal
    sim.until_published()
    assert why(sim, "Stalled") == ("CreateRefused", "admission webhook denied it")
    assert (sim.status.phase, truth(sim)["Succeeded"]) == ("RollingOut", "Unknown")
    assert sim.settle().requeue_after == 60
    sim.refuse.clear()
    sim.settle()
    assert sim.annotation == CANDIDATE


@pytest.mark.parametrize(
    ("annotation", "phase", "reason"),
    [("", "RolledBack", "ManualRollback"), ("s3://models/x@sha256:0", "Failed", "Superseded")],
)
def test_stranger_s_hand_on_the_annotation_is_respected(annotation: str, phase: str, reason: str):
    sim = served()
    sim.until_rolled()
    sim._annotate(annotation)
    applied = len([action for action in sim.done if isinstance(action, ApplyWeights)])
    sim.settle()
    assert_failed(sim, phase, reason)
    assert len([action for action in sim.done if isinstance(action, ApplyWeights)]) == applied
