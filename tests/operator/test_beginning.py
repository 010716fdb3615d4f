"""The first stages: noticed, queued, checked."""

from __future__ import annotations

from typing import Any

import pytest

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import (
    CreateJob,
    Refusal,
)
from skill_operator.api import Reason
from skill_operator.conditions import is_settled
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT, PREVIOUS
from tests.operator.seen import assert_failed, neighbour, promote_config, truth, why
from tests.operator.sim import Sim


def test_new_update_gets_its_first_status_before_anything_is_done():
    sim = Sim()
    planned = sim.look()
    assert planned.actions == ()
    assert truth(sim) == {"Ready": "False", "Succeeded": "Unknown", "Reconciling": "True"}
    assert (sim.status.phase, sim.status.observed_generation) == ("Pending", 1)


def test_unreadable_spec_stalls_and_names_the_field():
    sim = Sim(raw.update(method={"batchSize": "many"}))
    planned = sim.settle()
    assert (why(sim, "Stalled")[0], planned.requeue_after) == ("InvalidSpec", None)
    assert "method.batchSize" in why(sim)[1]


@pytest.mark.parametrize(
    ("other", "waits"),
    [
        ({}, True),
        ({"created": "2040-01-01T00:00:00Z"}, False),
        ({"created": "2040-01-01T00:00:00Z", "is_active": True}, True),
        ({"stands_aside": True}, False),
        ({"stands_aside": True, "is_active": True}, False),
        ({"model": "s3://models/another"}, False),
        ({"uid": raw.UID}, False),
    ],
)
def test_one_update_of_a_model_at_a_time_the_oldest_first(other: dict[str, Any], *, waits: bool):
    sim = Sim()
    sim.neighbours = (neighbour(**other),)
    sim.settle()
    assert (sim.status.phase == "Queued") == waits
    assert bool(sim.jobs) != waits
    if waits:
        assert "team/other" in why(sim, "Queued")[1]
        assert truth(sim)["Reconciling"] == "True"


def test_queue_moves_on_when_the_one_before_is_done():
    sim = Sim()
    sim.neighbours = (neighbour(),)
    sim.settle()
    sim.neighbours = ()
    sim.settle()
    assert "Queued" not in truth(sim)
    assert sim.has_job("check")


def test_active_update_is_not_put_back_by_an_older_one():
    sim = Sim()
    sim.settle()
    sim.neighbours = (neighbour(),)
    sim.finish("check")
    sim.settle()
    assert sim.has_job("train")


def test_job_name_that_somebody_else_took_is_said_and_tried_again():
    sim = Sim()
    refusal = Refusal(CreateJob({"kind": "Job", "metadata": {"name": "x"}}), Reason.NAME_CONFLICT, "Job x is not ours")
    sim.refuse[CreateJob] = refusal
    planned = sim.settle()
    assert why(sim, "Stalled") == ("NameConflict", "Job x is not ours")
    assert planned.requeue_after == 60
    sim.refuse.clear()
    sim.settle()
    assert "Stalled" not in truth(sim)


def test_check_records_the_parent_and_goes_on():
    sim = Sim()
    sim.settle()
    sim.finish("check")
    sim.settle()
    assert sim.status.parent is not None
    assert (sim.status.parent.version, sim.status.parent.digest) == PARENT
    assert truth(sim)["Checked"] == "True"
    assert sim.has_job("train")


def test_update_that_is_in_the_lineage_already_is_done_without_training():
    sim = Sim()
    sim.settle()
    sim.finish("check", raw.outcome(Step.CHECK, reason="AlreadyApplied"))
    sim.settle()
    assert (sim.status.phase, why(sim)[0]) == ("Succeeded", "AlreadyApplied")
    assert not sim.has_job("train")
    assert is_settled(sim.body)


def test_version_that_was_published_of_the_very_same_is_rolled_out_without_training():
    """The record of who made it went with a cluster, say; its gates were passed there."""
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.settle()
    sim.finish("check", raw.adopted())
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingOut", CANDIDATE)
    assert sim.status.parent is not None
    assert (sim.status.parent.digest, sim.status.evaluation) == (PARENT[1], raw.evaluation())
    assert why(sim, "Checked") == ("Adopted", f"{CHILD[0]} was made from the same: it is adopted")
    milestones = {"Trained": "Adopted", "Evaluated": "GatesPassed", "Published": "Adopted"}
    assert {kind: why(sim, kind)[0] for kind in milestones} == milestones
    sim.roll()
    sim.settle()
    sim.now += 31
    sim.settle()
    assert promote_config(sim).parent_digest == PARENT[1]
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, sim.status.training, sim.status.gpu_seconds) == ("Succeeded", None, None)
    assert not sim.has_job("train")


def test_adopted_version_is_approved_by_whoever_asks_for_it_now():
    sim = Sim(raw.update(gates={"approval": "Manual"}), raw.deployment(weights=PREVIOUS))
    sim.settle()
    sim.finish("check", raw.adopted())
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("AwaitingApproval", PREVIOUS)


def test_adopted_version_of_which_another_update_has_moved_the_head_away_is_not_rolled_out():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.settle()
    later = "2040-01-01T00:00:00Z"
    sim.neighbours = (neighbour(stands_aside=True, promoted_from=PARENT[1], promoted_at=later),)
    sim.finish("check", raw.adopted())
    sim.settle()
    assert_failed(sim, "Failed", "HeadMoved")
    assert sim.annotation == PREVIOUS


@pytest.mark.parametrize(
    ("status", "job_reason", "reason", "words"),
    [
        (raw.said(raw.outcome(Step.CHECK, Result.FAILED, "DataInvalid", "line 2, prompt: 7"), 42),
         "PodFailurePolicy", "DataInvalid", ["line 2"]),
        (raw.said(raw.outcome(Step.CHECK, Result.FAILED, "StoreUnavailable", "s3 is away"), 1),
         "BackoffLimitExceeded", "StoreUnavailable", ["s3 is away"]),
        (raw.ended(1, "KeyError: 'x'"), "BackoffLimitExceeded", "RetriesExhausted", ["KeyError", "exit code 1"]),
        (raw.ended(137, reason="OOMKilled"), "BackoffLimitExceeded", "OutOfMemory", ["memory"]),
        (raw.ended(139), "DeadlineExceeded", "DeadlineExceeded", ["3600 s", "image, node, quota"]),
    ],
)  # fmt: skip
def test_failed_check_ends_the_update(status: raw.Raw, job_reason: str, reason: str, words: list[str]):
    sim = Sim()
    sim.settle()
    sim.fail("check", status, job_reason)
    sim.settle()
    assert_failed(sim, "Failed", reason, *words)
    assert (truth(sim)["Checked"], why(sim, "Checked")[0]) == ("False", reason)
    assert not sim.has_job("train")


def test_check_that_is_tried_again_says_why():
    sim = Sim()
    sim.settle()
    away = raw.outcome(Step.CHECK, Result.FAILED, "StoreUnavailable", "s3 is away")
    sim.pod("check", raw.said(away, 1))
    told = sim.look().news
    assert sim.status.failure is not None
    assert (sim.status.failure.reason, sim.status.failure.retriable) == ("StoreUnavailable", True)
    assert [(news.reason, news.warning) for news in told] == [("StoreUnavailable", True)]
    sim.finish("check")
    sim.settle()
    assert (sim.status.failure, truth(sim)["Checked"]) == (None, "True")


def test_check_that_runs_out_of_memory_is_not_tried_again():
    sim = Sim()
    sim.settle()
    sim.pod("check", raw.ended(137, reason="OOMKilled"))
    sim.settle()
    assert_failed(sim, "Failed", "OutOfMemory", "node-1")
    assert sim.job("check")["spec"]["suspend"] is True


def test_answer_that_was_lost_is_asked_for_again_a_bounded_number_of_times():
    sim = Sim()
    sim.settle()
    for run in range(1, 6):
        assert sim.job("check")["metadata"]["labels"]["sdft.dev/run"] == str(run)
        sim.finish("check", keep_pod=False)
        sim.settle()
    assert_failed(sim, "Failed", "OutcomeLost")
    assert len(sim.jobs) == 5


def test_pod_that_cannot_start_is_explained():
    sim = Sim()
    sim.settle()
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s3-creds" not found'}
    sim.pod("check", raw.pod_status(phase="Pending", waiting=waiting))
    sim.settle()
    assert 'secret "s3-creds" not found' in why(sim)[1]
