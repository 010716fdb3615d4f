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
    assert [(news.reason, news.warning) for news in planned.alerts] == [("HeartbeatLost", True)]
    assert "step 60" in planned.alerts[0].message


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
