"""Rollouts that fail: why they are taken back, with what proof, and how loud that is."""

from __future__ import annotations

from typing import Any

import pytest

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import ApplyWeights
from skill_operator.api import ROLLBACK_ANNOTATION
from skill_operator.conditions import is_settled
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT, PREVIOUS
from tests.operator.seen import assert_failed, served, trained, truth, why
from tests.operator.sim import Sim

OTHER = "sha256:" + "c" * 64


def crashed(restarts: int, **last: Any) -> raw.Raw:
    return {"restartCount": restarts, "lastState": {"terminated": raw.terminated(1, "bad config") | last}}


FAULTS = [
    ({"message": raw.fetch_failed("DigestMismatch", "sha256 differs", "model.safetensors"), "fetch_code": 1},
     "DigestMismatch", "model.safetensors"),
    ({"message": raw.fetch_failed("NotFound"), "fetch_code": 1}, "NotFound", "says NotFound"),
    ({"message": raw.fetch_failed("NoSpace"), "fetch_code": 1}, "NoSpace", "says NoSpace"),
    ({"message": raw.fetch_failed("AccessDenied"), "fetch_code": 1}, "AccessDenied", "says AccessDenied"),
    ({"message": raw.fetched(CANDIDATE, CHILD[1]), "engine": crashed(3)}, "EngineCrash", "bad config"),
    ({"message": raw.fetched(CANDIDATE, CHILD[1]), "engine": crashed(1, reason="OOMKilled")}, "EngineCrash", "memory"),
]  # fmt: skip


ENVIRONMENT = {"NoSpace", "AccessDenied"}
"""Say nothing about the weights."""


@pytest.mark.parametrize(("pods", "reason", "word"), FAULTS, ids=[fault[1] + str(i) for i, fault in enumerate(FAULTS)])
@pytest.mark.parametrize("previous", ["", PREVIOUS])
def test_fault_on_the_candidate_rolls_back_and_proves_it(pods: dict[str, Any], reason: str, word: str, previous: str):
    sim = Sim(deployment=raw.deployment(weights=previous))
    sim.until_published()
    sim.roll(**({"ready": False} | pods))
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", previous)
    assert not is_settled(sim.body)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "Failed" if reason in ENVIRONMENT else "RolledBack", reason, word, "rolled back")
    assert truth(sim)["RolledOut"] == "False"
    assert sim.body["metadata"]["finalizers"] == []


@pytest.mark.parametrize("previous", ["", PREVIOUS])
@pytest.mark.parametrize("moment", ["told", "on the way", "back", "final"])
def test_a_candidate_that_was_taken_back_is_not_tried_again_when_the_status_is_lost(previous: str, moment: str):
    sim = Sim(deployment=raw.deployment(weights=previous))
    sim.until_published()
    sim.roll(message=raw.fetch_failed("DigestMismatch", "sha256 differs"), fetch_code=1, ready=False)
    sim.settle()
    applied = len(sim.done)
    if moment == "told":
        sim.serving = []
    if moment in {"back", "final"}:
        sim.roll(digest=PARENT[1])
    if moment == "final":
        sim.settle()
    sim.body["status"] = {}
    sim.settle()
    if moment not in {"back", "final"}:
        assert sim.status.phase == "RollingBack"
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "DigestMismatch", "sha256 differs", "rolled back")
    told = [action.weights for action in sim.done[applied:] if isinstance(action, ApplyWeights)]
    assert CANDIDATE not in told
    assert sim.body["metadata"]["finalizers"] == []


@pytest.mark.parametrize("note", ["", "{", "[]", '{"uid": "another", "rollback": {}}', None])
def test_a_note_that_is_broken_or_was_copied_from_another_update_says_nothing(note: str | None):
    source = Sim(deployment=raw.deployment(weights=PREVIOUS))
    source.until_published()
    source.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    source.settle()
    copied = source.body["metadata"]["annotations"][ROLLBACK_ANNOTATION]
    sim = served()
    sim.body["metadata"] |= {"uid": "of-the-copy", "annotations": {ROLLBACK_ANNOTATION: note or copied}}
    sim.until_rolled()
    assert sim.status.phase == "Soaking"


def test_store_that_is_away_is_waited_for_until_the_deadline():
    sim = served()
    sim.until_published()
    sim.roll(message=raw.fetch_failed("FetchFailed", "connection refused"), fetch_code=1, ready=False)
    sim.settle()
    assert sim.status.phase == "RollingOut"
    assert "connection refused" in why(sim)[1]
    sim.now += 1801
    sim.settle()
    assert why(sim)[1].startswith("FetchFailed")
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "Failed", "FetchFailed", "0/2", "connection refused")


def test_engine_that_ends_in_the_soak_is_a_fault_at_once():
    sim = served()
    sim.until_rolled()
    sim.now += 20
    ended = raw.terminated(1, "assertion", at=sim.now)
    sim.serving[0]["status"]["containerStatuses"][0] |= {"restartCount": 1, "lastState": {"terminated": ended}}
    sim.settle()
    assert why(sim)[1].startswith("EngineCrash")


def test_engine_that_ends_in_the_soak_is_a_fault_while_its_pod_is_not_ready():
    sim = served()
    sim.until_rolled()
    sim.now += 20
    ended = raw.terminated(1, "assertion", at=sim.now)
    crash = {"restartCount": 1, "lastState": {"terminated": ended}}
    sim.serving[0]["status"] = raw.serving_status(raw.fetched(CANDIDATE, CHILD[1]), ready=False, engine=crash)
    sim.settle()
    assert why(sim)[1].startswith("EngineCrash")


def test_pod_that_is_lost_in_a_soak_beyond_the_deadline_gets_time_to_come_back():
    sim = Sim(raw.update(serving={"targetRef": {"name": "support-llm"}, "soakSeconds": 3600}), raw.deployment())
    sim.until_rolled()
    lost = sim.serving.pop()  # its node went, or the autoscaler wants one more
    sim.now += 1900
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingOut", CANDIDATE)
    sim.now += 1700
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.serving.append(lost)
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_pod_that_is_lost_in_the_soak_and_does_not_come_back_ends_the_rollout():
    sim = served()
    sim.until_rolled()
    sim.serving.pop()
    sim.settle()
    sim.now += 1801
    sim.settle()
    assert why(sim)[1].startswith("ProgressDeadline")


@pytest.mark.parametrize(
    ("result", "reason", "code", "phase"),
    [
        (Result.REJECTED, "OutputMismatch", 0, "RolledBack"),
        (Result.FAILED, "VersionMissing", 42, "RolledBack"),
        (Result.FAILED, "HeadMoved", 42, "Failed"),
        (Result.FAILED, "AccessDenied", 42, "Failed"),
        (Result.FAILED, "ConfigInvalid", 42, "Failed"),
    ],
)
def test_promotion_that_is_refused_rolls_back(result: Result, reason: str, code: int, phase: str):
    sim = served()
    sim.until_promoting()
    answer = raw.outcome(Step.PROMOTE, result, reason, "expected A, got B")
    if code:
        sim.fail("promote", raw.said(answer, code), "PodFailurePolicy")
    else:
        sim.finish("promote", answer)
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", "")
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, phase, reason, "expected A, got B")


def test_engine_that_cannot_be_asked_is_asked_again_and_then_rolled_back():
    sim = served()
    sim.until_promoting()
    answer = raw.outcome(Step.PROMOTE, Result.FAILED, "EngineUnreachable", "connection refused")
    for run in range(1, 6):
        assert sim.job("promote")["metadata"]["labels"]["sdft.dev/run"] == str(run)
        sim.fail("promote", raw.said(answer, 1))
        planned = sim.settle()
        assert sim.status.phase == ("Soaking" if run < 5 else "RollingBack")
        if run < 5:
            assert planned.requeue_after == 10 * 2 ** (run - 1)
        sim.now += 10 * 2 ** (run - 1)
        sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "Failed", "EngineUnreachable", "rolled back")


def test_promotion_that_runs_out_of_its_time_says_nothing_against_the_candidate():
    sim = served()
    sim.until_promoting()
    for _ in range(5):
        sim.fail("promote", raw.running(), "DeadlineExceeded")
        sim.now += 300
        sim.settle()
    assert sim.annotation == ""
    sim.roll(digest=PARENT[1])
    sim.settle()
    sim.finish("revert")  # the step may have moved the head before its time was up
    sim.settle()
    assert_failed(sim, "Failed", "DeadlineExceeded", "rolled back")
    sim.body["status"]["phase"] = "somebody's"
    sim.settle()
    assert sim.status.phase == "Failed"


@pytest.mark.parametrize("serving", [True, False], ids=["served", "published only"])
def test_store_that_is_away_while_promoting_says_nothing_against_the_candidate(*, serving: bool):
    sim = Sim(raw.update(serving=serving), raw.deployment() if serving else None)
    if serving:
        sim.until_promoting()
    else:
        sim.until_published()
    told: list[str] = []
    answer = raw.outcome(Step.PROMOTE, Result.FAILED, "StoreUnavailable", "s3://models does not answer")
    for run in range(1, 20):  # an hour and a half
        assert sim.job("promote")["metadata"]["labels"]["sdft.dev/run"] == str(run)
        sim.fail("promote", raw.said(answer, 1))
        planned = sim.look()
        told += [news.reason for news in planned.news]
        assert why(sim) == ("StoreUnavailable", "the promote step is tried again: s3://models does not answer")
        assert ("Stalled" in truth(sim), "Reconciling" in truth(sim)) == (run >= 5, run < 5)
        assert planned.requeue_after == min(10 * 2 ** (run - 1), 300)
        sim.now += planned.requeue_after
        sim.settle()
    assert told == ["StoreUnavailable"]
    assert len([job for job in sim.jobs if "-promote-" in job]) == 5, "the Jobs of a long outage do not pile up"
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, truth(sim)["Ready"]) == ("Succeeded", "True")
    assert not serving or sim.annotation == CANDIDATE


def test_head_that_moved_without_serving_fails():
    sim = trained()
    sim.finish("train")
    sim.settle()
    sim.fail(
        "promote", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved", "head is X"), 42), "PodFailurePolicy"
    )
    sim.settle()
    assert_failed(sim, "Failed", "HeadMoved", "head is X")


@pytest.mark.parametrize(("digest", "back"), [(OTHER, True), (CHILD[1], False)])
def test_pods_that_took_the_head_before_are_back_when_they_take_the_head(digest: str, *, back: bool):
    sim = served()  # no annotation before
    sim.until_promoting()
    answer = raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved", "the head is another one")
    sim.fail("promote", raw.said(answer, 42), "PodFailurePolicy")
    sim.settle()
    assert sim.annotation == ""
    sim.roll(digest=digest)
    sim.settle()
    assert (sim.status.phase == "Failed") == back
    assert (digest in why(sim)[1]) == back


def test_target_without_replicas_says_what_to_do():
    sim = Sim(deployment=raw.deployment(replicas=0))
    sim.until_published()
    assert why(sim)[0] == "TargetBusy"
    assert "scale it up" in why(sim)[1]


def test_rollback_of_a_target_that_was_scaled_to_zero_ends():
    sim = served()
    sim.until_published()
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.settle()
    assert sim.annotation == ""
    assert sim.deployment is not None
    sim.deployment["spec"]["replicas"] = 0
    sim.roll()
    sim.settle()
    assert_failed(sim, "RolledBack", "DigestMismatch", "0 replicas")


def test_rollback_that_does_not_arrive_is_loud_and_goes_on():
    sim = served()
    sim.until_published()
    sim.roll(message=raw.fetch_failed("NotFound"), fetch_code=1, ready=False)
    sim.settle()
    sim.now += 1801
    planned = sim.settle()
    assert why(sim, "Stalled")[0] == "RollbackFailed"
    assert truth(sim)["Succeeded"] == "Unknown"
    assert [news.reason for news in planned.alerts] == ["RollbackFailed"]
    assert not is_settled(sim.body)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "NotFound")


def test_manual_rollback_holds_and_says_how_to_go_on():
    sim = served()
    sim.body["spec"]["serving"]["rollback"] = "Manual"
    sim.until_published()
    sim.roll(message=raw.fetch_failed("NotFound"), fetch_code=1, ready=False)
    sim.settle()
    assert (why(sim, "Stalled")[0], sim.annotation) == ("NotFound", CANDIDATE)
    assert "Automatic" in why(sim)[1]
    sim.now += 4 * 3600
    sim.body["spec"]["serving"]["rollback"] = "Automatic"
    alerts = len(sim.alerts)
    sim.settle()
    assert (sim.annotation, sim.status.phase, len(sim.alerts)) == ("", "RollingBack", alerts)
    sim.now += 1800
    sim.settle()
    assert "Stalled" not in truth(sim), "it has its whole time from there on"
    sim.roll(digest=PARENT[1])
    sim.settle()
    words = "16200 s after the fault and 1800 s after the target was told to go back"
    assert_failed(sim, "RolledBack", "NotFound", words)
    assert sim.status.rollout.rollback.seconds == 1800


def test_manual_rollback_that_does_not_arrive_is_loud_in_its_own_time():
    sim = served()
    sim.body["spec"]["serving"]["rollback"] = "Manual"
    sim.until_published()
    sim.roll(message=raw.fetch_failed("NotFound"), fetch_code=1, ready=False)
    sim.settle()
    sim.now += 4 * 3600
    sim.body["spec"]["serving"]["rollback"] = "Automatic"
    sim.settle()
    sim.now += 1801
    sim.settle()
    assert why(sim, "Stalled")[0] == "RollbackFailed"


def test_target_that_is_deleted_in_the_rollout_fails_the_update():
    sim = served()
    sim.until_rolled()
    sim.deployment = None
    sim.settle()
    assert_failed(sim, "Failed", "TargetMissing")
