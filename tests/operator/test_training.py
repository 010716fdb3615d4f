"""Training: progress, restarts, results; suspended, resumed, approved."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Result
from skill_contract.progress import Stage
from skill_contract.step import Step
from skill_operator.actions import (
    CreateJob,
    DeletePod,
    PatchJob,
)
from skill_operator.conditions import is_settled
from skill_operator.steps.train import COUNTED_AFTER_SECONDS
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT
from tests.operator.seen import assert_failed, neighbour, promote_config, served, trained, training, truth, why
from tests.operator.sim import Sim


def test_progress_is_shown():
    sim = trained()
    training(sim)
    planned = sim.settle()
    seen = sim.status.training
    assert seen is not None
    assert (seen.step, seen.total_steps, seen.eta_seconds, seen.last_checkpoint_step) == (60, 130, 70, 50)
    assert (sim.status.progress, sim.status.phase, seen.attempt) == ("46%", "Training", 1)
    assert planned.requeue_after == 10
    training(sim, stage=Stage.EVALUATING)
    sim.settle()
    assert sim.status.phase == "Evaluating"
    sim.progress = None  # too busy to answer, once
    assert dict(sim.look().status) == dict(sim.plan().status)
    assert sim.status.phase == "Evaluating"


def test_trainer_that_does_not_answer_is_left_alone():
    sim = trained()
    sim.now += 10_000
    assert [type(action) for action in sim.settle().actions] == []
    assert not any(isinstance(action, DeletePod) for action in sim.done)


def test_trainer_that_stands_still_is_killed_once_and_told():
    sim = trained()
    training(sim, heartbeat=901)
    planned = sim.look()
    assert [type(action) for action in planned.actions] == [DeletePod]
    (news,) = [news for news in planned.news if news.reason == "HeartbeatLost"]
    assert (news.warning, "step 60" in news.message) == (True, True)
    sim.pods[-1]["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"  # it hangs on until its grace is over
    sim.now += 10
    planned = sim.look()
    assert (planned.actions, planned.news) == ((), ())
    sim.pods[-1]["status"] = raw.ended(137)
    sim.settle()
    assert sim.status.failure is not None
    assert (sim.status.failure.reason, sim.status.failure.retriable) == ("HeartbeatLost", True)


def test_restarts_and_preemptions_are_counted_and_never_forgotten():
    sim = trained()
    sim.pods[-1]["status"] = raw.ended(1, "crash")
    sim.job("train")["status"] = {"failed": 1}
    sim.pod("train", raw.ended(75, raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted").dump_json()))
    drained = sim.pod("train", raw.ended(143))
    drained["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    sim.pod("train", raw.running())
    sim.settle()
    seen = sim.status.training
    assert seen is not None
    assert (seen.restarts, seen.preemptions, seen.attempt) == (1, 2, 4)
    sim.pods = sim.pods[-1:]
    sim.job("train")["status"] = {}
    sim.settle()
    assert sim.status.training == seen


def test_pods_that_went_without_a_trace_are_counted_as_taken_away():
    sim = trained()
    sim.settle()
    for _ in range(3):  # drained: the pod is gone with its node before anybody looks
        sim.pods.clear()
        sim.now += 100
        sim.pod("train", raw.running(sim.now))["metadata"]["name"] = last = f"pod-{sim.now}"
        sim.settle()
    sim.now += COUNTED_AFTER_SECONDS
    sim.settle()
    seen = sim.status.training
    assert seen is not None
    assert (seen.restarts, seen.preemptions, seen.attempt, seen.pod) == (0, 3, 4, last)


def test_failure_that_its_job_counts_after_the_next_pod_has_begun_is_counted_once():
    sim = trained()
    sim.settle()
    sim.pods.clear()  # deleted because it hung
    sim.now += 100
    sim.pod("train", raw.running(sim.now))["metadata"]["name"] = "second"
    sim.settle()
    sim.now += 1
    sim.job("train")["status"] = {"failed": 1}
    sim.settle()
    sim.now += COUNTED_AFTER_SECONDS
    sim.settle()
    seen = sim.status.training
    assert seen is not None
    assert (seen.restarts, seen.preemptions, seen.attempt) == (1, 0, 2)


def test_counts_go_on_from_those_before_a_suspension():
    sim = trained()
    for resumption in range(1, 3):
        sim.pods[-1]["status"] = raw.ended(1, "crash")
        sim.job("train")["status"] = {"failed": 1}
        sim.pod("train", raw.running(sim.now))
        sim.settle()
        sim.now += 3600
        sim.settle()
        sim.body["spec"]["suspend"] = True
        sim.settle()
        sim.body["spec"]["suspend"] = False
        sim.settle()
        sim.now += 10
        sim.pod("train", raw.running(sim.now))["metadata"]["name"] = f"pod-{sim.now}"
        sim.settle()
        seen = sim.status.training
        assert seen is not None
        assert (seen.restarts, seen.preemptions, seen.attempt) == (resumption, 0, 1 + 2 * resumption)
        assert sim.status.gpu_seconds == pytest.approx(resumption * 8 * 3600, rel=0.02)


def test_pod_that_ends_because_its_job_is_taken_away_is_no_preemption():
    sim = trained()
    sim.settle()
    sim.job("train")["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    sim.body["spec"]["suspend"] = True
    sim.pods[-1]["status"] = raw.said(raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted"), 75)
    sim.settle()
    assert sim.status.training is not None
    assert (sim.status.training.preemptions, sim.status.failure) == (0, None)


def _disrupted(reason: str, message: str) -> raw.Raw:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return raw.ended(143) | {"conditions": [condition]}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (_disrupted("PreemptionByScheduler", "preempting for urgent"), "Preempted", "preempting for urgent"),
        (_disrupted("DeletionByTaintManager", "node is not ready"), "NodeLost", "node-1"),
        (_disrupted("DeletionByPodGC", "no such node"), "NodeLost", "no such node"),
        (raw.said(raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted", "saved step 60"), 75), "Preempted", "step 60"),
        (raw.said(raw.outcome(Step.TRAIN, Result.FAILED, "StoreUnavailable", "s3 is away"), 1), "StoreUnavailable",
         "s3 is away"),
        (raw.said(raw.outcome(Step.TRAIN, Result.FAILED, "UnknownFault", "KeyError"), 1), "UnknownFault", "KeyError"),
        (raw.ended(134, "CUDA error: ECC"), "Crashed", "exit code 134: CUDA error"),
    ],
)  # fmt: skip
def test_why_a_pod_ended_before_its_time_is_told_apart_and_shown(status: raw.Raw, reason: str, words: str):
    sim = trained()
    sim.pods[-1]["status"] = status
    planned = sim.look()
    shown = sim.status.failure
    assert shown is not None
    assert (shown.reason, shown.retriable, shown.pod, shown.node) == (reason, True, sim.pods[-1]["metadata"]["name"],
                                                                       "node-1")  # fmt: skip
    assert words in shown.message
    assert [news.warning for news in planned.news if news.reason == reason] == [reason not in {"Preempted", "NodeLost"}]
    assert truth(sim)["Succeeded"] == "Unknown"
    sim.finish("train")
    sim.settle()
    assert sim.status.failure is None, "it came to its end after all"


def test_retries_that_are_used_up_by_hanging_say_so():
    """A pod that was deleted leaves nothing behind: its Job knows only that it failed too often."""
    sim = trained()
    training(sim, heartbeat=901)
    sim.look()
    failure = raw.job_condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    sim.job("train")["status"] = {"failed": 4, "conditions": [failure]}
    sim.settle()
    assert_failed(sim, "Failed", "RetriesExhausted", "backoff limit", "HeartbeatLost", "step 60")


def test_attempts_are_pods_that_have_started():
    sim = trained()
    for attempt in range(1, 4):
        sim.pods[-1]["status"] = raw.ended(75)
        sim.settle()
        seen = sim.status.training
        assert seen is not None
        assert (seen.attempt, seen.preemptions) == (attempt, attempt), "the next one has not started"
        sim.now += 10
        sim.pod("train", raw.running(sim.now))
    sim.settle()
    assert sim.status.training is not None
    assert sim.status.training.attempt == 4


def test_longer_deadline_reaches_the_running_job():
    sim = trained()
    sim.body["spec"]["training"]["activeDeadlineSeconds"] = 100_000
    sim.settle()
    assert sim.job("train")["spec"]["activeDeadlineSeconds"] == 100_000


def test_published_version_without_serving_is_promoted():
    sim = trained()
    sim.finish("train")
    sim.settle()
    assert sim.status.published is not None
    assert sim.status.published.uri == f"{raw.MODEL}/versions/{CHILD[0]}"
    assert [truth(sim)[kind] for kind in ("Trained", "Evaluated", "Published")] == ["True"] * 3
    config = promote_config(sim)
    assert (config.version, config.digest, config.parent_digest, config.pods) == (*CHILD, PARENT[1], ())
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, why(sim)[0], truth(sim)["Ready"]) == ("Succeeded", "Promoted", "True")
    assert is_settled(sim.body)


@pytest.mark.parametrize(
    ("reason", "trained_truth"), [("SkillForgotten", "True"), ("SkillNotLearned", "True"), ("NoInContextGain", "False")]
)
def test_rejection_ends_the_update_and_serves_nothing(reason: str, trained_truth: str):
    sim = trained(raw.update())
    sim.deployment = raw.deployment()
    sim.finish("train", raw.outcome(Step.TRAIN, Result.REJECTED, reason, "0.71 < 0.90"))
    sim.settle()
    assert_failed(sim, "Rejected", reason, "0.71 < 0.90")
    assert (truth(sim)["Trained"], truth(sim)["Evaluated"]) == (trained_truth, "False")
    assert sim.status.evaluation is not None
    assert (sim.annotation, sim.status.published) == ("", None)


def test_out_of_memory_fails_at_once_and_stops_the_job_without_losing_its_logs():
    sim = trained()
    sim.pods[-1]["status"] = raw.ended(137, reason="OOMKilled")
    sim.settle()
    assert_failed(sim, "Failed", "OutOfMemory", "batchSize", "node-1")
    assert PatchJob("Job", sim.job("train")["metadata"]["name"], {"spec": {"suspend": True}}) in sim.done


def test_result_counts_even_when_a_pod_before_ran_out_of_memory():
    sim = trained()
    sim.pods[-1]["status"] = raw.ended(137, reason="OOMKilled")
    sim.finish("train")  # all of it while the operator was away
    sim.settle()
    assert truth(sim)["Published"] == "True"


def test_last_word_of_an_earlier_pod_is_not_the_job_s():
    sim = trained()
    sim.pods[-1]["status"] = raw.said(raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted"), 75)
    sim.finish("train", keep_pod=False)  # the pod that finished was collected with its node
    sim.settle()
    assert truth(sim)["Succeeded"] == "Unknown"
    assert sim.job("train")["metadata"]["labels"]["sdft.dev/run"] == "2"


def test_deadline_is_named_with_its_value_and_not_the_crash_before_it():
    sim = trained()
    crash = raw.said(raw.outcome(Step.TRAIN, Result.FAILED, "Diverged", "loss is NaN"), 1)
    sim.fail("train", crash, "DeadlineExceeded")  # the pod that ran at the end is deleted by the Job controller
    sim.settle()
    assert_failed(sim, "Failed", "DeadlineExceeded", "86400 s", "activeDeadlineSeconds")


def test_retries_that_are_used_up_fail_with_the_end_of_the_log():
    sim = trained()
    sim.fail("train", raw.ended(134, "CUDA error: ECC uncorrectable"), failed=4)
    sim.settle()
    assert_failed(sim, "Failed", "RetriesExhausted", "ECC", "4 times")
    assert sim.status.failure is not None
    assert (sim.status.failure.exit_code, sim.status.failure.node, sim.status.failure.retriable) == (
        134,
        "node-1",
        True,
    )


def test_suspended_training_is_stopped_and_resumes_with_a_new_template():
    sim = trained()
    sim.body["spec"]["suspend"] = True
    sim.settle()
    assert (sim.status.phase, why(sim)[0]) == ("Suspended", "Suspended")
    assert truth(sim)["Suspended"] == "True"
    assert {"Reconciling", "Stalled"}.isdisjoint(truth(sim))
    assert not sim.has_job("train")
    sim.body["spec"] |= {"suspend": False}
    sim.body["spec"]["training"]["template"] = {"nodeSelector": {"pool": "b"}}
    sim.settle()
    assert "Suspended" not in truth(sim)
    assert sim.job("train")["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "b"}


def test_resumed_update_waits_for_one_that_began_meanwhile():
    sim = trained()
    sim.body["spec"]["suspend"] = True
    sim.settle()
    sim.body["spec"]["suspend"] = False
    sim.neighbours = (neighbour(is_active=True, created="2040-01-01T00:00:00Z"),)
    sim.settle()
    assert sim.status.phase == "Queued"


def test_new_run_waits_for_the_pods_of_the_one_before():
    sim = trained()
    sim.job("train")["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    sim.settle()
    assert "have not ended" in why(sim)[1]
    assert len([action for action in sim.done if isinstance(action, CreateJob)]) == 2


def test_suspension_does_not_stop_a_rollout():
    sim = served()
    sim.until_rolled()
    sim.body["spec"]["suspend"] = True
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_manual_approval_waits_before_anything_is_served():
    sim = Sim(raw.update(gates={"approval": "Manual"}), raw.deployment())
    sim.until_published()
    assert (sim.status.phase, sim.annotation) == ("AwaitingApproval", "")
    assert "spec.approved" in why(sim)[1]
    sim.body["spec"]["approved"] = True
    sim.settle()
    assert sim.annotation == CANDIDATE
