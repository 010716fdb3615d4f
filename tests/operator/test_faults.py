"""What can go wrong with serving pods in a rollout, and what is then done: the table of docs/serving.md."""

from __future__ import annotations

from typing import Any

import pytest

from skill_contract.outcome import Result
from skill_operator.api import to_rfc3339
from tests.operator import raw
from tests.operator.raw import CANDIDATE, PARENT, PREVIOUS, Step
from tests.operator.seen import assert_failed, served, truth, why
from tests.operator.sim import Sim


def rolling() -> Sim:
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_published()
    assert sim.annotation == CANDIDATE
    return sim


def cannot_start(sim: Sim, reason: str) -> None:
    """The first new pod is there, and its engine's container is not started."""
    waiting = {"waiting": {"reason": reason, "message": "Back-off pulling image engine:2"}}
    sim.roll_first(message="", ready=False, engine={"state": waiting})
    sim.serving[-1]["metadata"]["creationTimestamp"] = to_rfc3339(sim.now)


def not_admitted(sim: Sim) -> None:
    assert sim.deployment is not None
    refused = raw.job_condition("ReplicaFailure", "FailedCreate", "exceeded quota: team, pods 4 of 4", at=sim.now)
    sim.deployment["status"]["conditions"] = [refused]


@pytest.mark.parametrize(("break_it", "word"), [
    (lambda sim: cannot_start(sim, "ImagePullBackOff"), "engine:2"),
    (lambda sim: cannot_start(sim, "CreateContainerConfigError"), "CreateContainerConfigError"),
    (not_admitted, "exceeded quota"),
])  # fmt: skip
def test_pod_that_is_not_created_is_waited_for_a_while_and_no_fault_of_the_weights(break_it: Any, word: str):
    sim = rolling()
    break_it(sim)
    sim.now += 449
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingOut", CANDIDATE)
    assert word in why(sim)[1]
    sim.now += 2
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", PREVIOUS)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "Failed", "PodNotCreated", word)


def test_engine_that_starts_again_and_again_is_not_one_that_cannot_start():
    sim = rolling()
    cannot_start(sim, "CrashLoopBackOff")
    sim.now += 600
    sim.settle()
    assert sim.status.phase == "RollingOut"


def test_store_that_is_away_is_waited_for_until_the_deadline():
    """The old pods serve on: nothing is gained by going back earlier, and the way back may need the store, too."""
    sim = rolling()
    sim.roll_first(message=raw.fetch_failed("FetchFailed", "s3 does not answer"), fetch_code=1, ready=False)
    sim.now += 1799
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingOut", CANDIDATE)
    assert "s3 does not answer" in why(sim)[1]
    sim.now += 2
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "Failed", "FetchFailed", "s3 does not answer")


@pytest.mark.parametrize(("reason", "phase"), [
    ("NoSpace", "Failed"), ("AccessDenied", "Failed"), ("NotFound", "RolledBack"), ("DigestMismatch", "RolledBack"),
])  # fmt: skip
def test_what_another_try_cannot_mend_goes_back_at_once(reason: str, phase: str):
    sim = rolling()
    sim.roll_first(message=raw.fetch_failed(reason), fetch_code=1, ready=False)
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, phase, reason)


def no_node(sim: Sim, words: str) -> None:
    """The first new pod is there, and the scheduler finds no node for it."""
    sim.roll_first(message="", ready=False)
    message = f"0/1 nodes are available: 1 {words}"
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    sim.serving[-1]["status"]["conditions"].append(unschedulable)


def ends(sim: Sim, container: str, code: int, reason: str, restarts: int, **status: Any) -> None:
    """The first new pod is there, and one of its containers ends again and again."""
    sim.roll_first(**({"message": "", "ready": False} | status))
    found = sim.serving[-1]["status"][f"{container}Statuses"]
    found[0] |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": raw.terminated(code, reason=reason)},
        "restartCount": restarts,
    }


GOOD = raw.fetched(CANDIDATE, raw.CHILD[1])
LATE = [
    (lambda sim: no_node(sim, "Insufficient nvidia.com/gpu"), "Failed", "SurgeBlocked",
     "no node takes pod support-llm-9: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu"),
    (lambda sim: no_node(sim, "node(s) had untolerated taint"), "Failed", "PodNotCreated", "untolerated taint"),
    (lambda sim: ends(sim, "initContainer", 137, "OOMKilled", 6), "Failed", "FetchFailed",
     "pod support-llm-9: container weights ended (OOMKilled, exit code 137, started again 6 times)"),
    (lambda sim: ends(sim, "container", 1, "Error", 2, message=GOOD), "RolledBack", "ProgressDeadline",
     "pod support-llm-9: container server ended (Error, exit code 1, started again 2 times)"),
]  # fmt: skip


@pytest.mark.parametrize(("break_it", "phase", "reason", "words"), LATE, ids=[late[3] for late in LATE])
def test_rollout_that_is_late_says_what_kept_its_pods(break_it: Any, phase: str, reason: str, words: str):
    sim = rolling()
    break_it(sim)
    sim.settle()
    assert words in why(sim)[1], "also while it is waited for"
    sim.now += 1801
    sim.settle()
    assert sim.annotation == PREVIOUS
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, phase, reason, words, "rolled back")
    assert ("set strategy: {rollingUpdate: {maxSurge: 0" in why(sim)[1]) == (reason == "SurgeBlocked")


def test_damaged_version_is_named_with_the_way_to_look_at_it():
    sim = rolling()
    sim.roll_first(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "DigestMismatch", f"skill-store verify {raw.MODEL}/versions/{raw.CHILD[0]}")


def test_no_room_for_one_more_pod_says_what_to_write():
    sim = rolling()
    no_node(sim, "Insufficient nvidia.com/gpu")
    sim.settle()
    blocked = why(sim, "SurgeBlocked")[1]
    assert "Insufficient nvidia.com/gpu" in blocked
    assert "rollingUpdate: {maxSurge: 0, maxUnavailable: 1}" in blocked


def scaled(sim: Sim, replicas: int) -> None:
    assert sim.deployment is not None
    sim.deployment["spec"]["replicas"] = replicas
    sim.roll()
    sim.settle()


@pytest.mark.parametrize("soaks", [False, True])
def test_target_that_is_scaled_to_nothing_for_the_night_is_waited_for_and_its_time_does_not_run(*, soaks: bool):
    sim = rolling()
    if soaks:
        sim.roll()
        sim.settle()
    scaled(sim, 0)
    for _ in range(12):
        sim.now += 3600 / 4
        sim.settle()
        assert (sim.status.phase, sim.annotation, sim.has_job("promote")) == ("RollingOut", CANDIDATE, False)
        assert "0 replicas" in why(sim)[1]
        assert {"Stalled", "Reconciling"}.isdisjoint(truth(sim)), "somebody asked for it"
    assert sim.deployment is not None
    sim.deployment["spec"]["replicas"] = 2
    sim.settle()
    sim.now += 850
    sim.settle()
    assert sim.status.phase == "RollingOut", "pods have their time to come up"
    sim.roll()
    sim.settle()
    assert sim.status.phase == "Soaking"
    sim.now += 29
    sim.settle()
    assert not sim.has_job("promote"), "the soak begins anew"
    sim.now += 2
    sim.settle()
    assert sim.has_job("promote")


def test_target_that_has_no_pods_before_the_rollout_is_waited_for_and_has_its_time_to_come_up():
    sim = Sim(deployment=raw.deployment(replicas=0))
    sim.until_published()
    for _ in range(12):
        sim.now += 3600
        sim.settle()
        assert (sim.status.phase, why(sim)[0]) == ("RollingOut", "TargetBusy")
        assert "scale it up" in why(sim)[1]
    assert sim.deployment is not None
    sim.deployment["spec"]["replicas"] = 2
    sim.settle()
    assert why(sim)[1] == "waits for Deployment support-llm: 0 of 2 replicas updated, 0 available, 0 in all"
    sim.now += 1799
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_target_that_is_deleted_ends_the_rollout():
    sim = rolling()
    sim.deployment = None
    sim.settle()
    assert_failed(sim, "Failed", "TargetMissing", "deleted")


def test_template_that_somebody_changes_in_the_soak_begins_it_anew():
    sim = served()
    sim.until_rolled()
    sim.now += 29
    assert sim.deployment is not None
    sim.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "engine:2"
    told = [news.reason for news in sim.look().news]
    assert told == ["MixedChange"]
    sim.settle()
    sim.now += 29
    sim.settle()
    assert (sim.status.phase, sim.has_job("promote")) == ("Soaking", False)
    sim.now += 2
    sim.settle()
    assert sim.has_job("promote")


def test_time_from_the_fault_to_the_last_pod_back_is_told():
    sim = rolling()
    failed = raw.fetch_failed("DigestMismatch")
    sim.roll_first(message=failed, fetch_code=1, ready=False)  # ended at raw.NOW
    sim.now += 3
    sim.settle()
    sim.now += 40
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "DigestMismatch", "43 s after the fault")
    assert sim.status.rollout is not None
    rollback = sim.status.rollout.rollback
    assert rollback is not None
    assert (rollback.fault_at, rollback.finished_at) == (to_rfc3339(raw.NOW), to_rfc3339(sim.now))


def test_fault_that_the_proof_finds_happened_when_its_job_ended():
    sim = served()
    sim.until_promoting()
    sim.finish("promote", raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch"))
    sim.now += 7
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "OutputMismatch", "7 s after the fault")
