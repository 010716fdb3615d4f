"""The hold after the first new pod: proved while the old ones serve, and ended by whatever ends the rollout."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Result
from skill_operator.actions import AddFinalizer, ApplyWeights, Refusal
from skill_operator.api import FIELD_MANAGER, Reason
from tests.operator import raw
from tests.operator.raw import CANDIDATE, PARENT, PREVIOUS, Step
from tests.operator.seen import assert_failed, promote_config, served, why
from tests.operator.sim import Sim


def is_paused(sim: Sim) -> bool:
    assert sim.deployment is not None
    return bool(sim.deployment["spec"].get("paused"))


def held(rollback: str = "Automatic") -> Sim:
    body = raw.update()
    body["spec"]["serving"]["rollback"] = rollback
    sim = Sim(body, raw.deployment(weights=PREVIOUS))
    sim.until_held()
    assert is_paused(sim)
    return sim


def says(sim: Sim, result: Result, reason: str) -> None:
    sim.finish("prove", raw.outcome(Step.PROMOTE, result, reason, f"the first pod says {reason}"))
    sim.settle()


def test_rest_follows_when_the_first_new_pod_is_proved():
    sim = held()
    config = promote_config(sim, "prove")
    assert ([pod.name for pod in config.pods], config.prove_only) == (["support-llm-9"], True)
    assert (sim.status.phase, why(sim)[0], sim.annotation) == ("RollingOut", "Proving", CANDIDATE)
    assert sim.status.rollout is not None
    until = sim.status.rollout.deadline
    sim.now += 100
    says(sim, Result.SUCCEEDED, "Proved")
    assert (is_paused(sim), sim.annotation) == (False, CANDIDATE)
    assert sim.status.rollout.hold is not None
    assert sim.status.rollout.hold.proved
    assert sim.status.rollout.deadline > until, "a rollout that came forward has its time again"
    sim.roll()
    sim.settle()
    assert sim.status.phase == "Soaking"
    sim.now += 31
    sim.settle()
    assert not promote_config(sim).prove_only
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, is_paused(sim)) == ("Succeeded", False)


def test_first_pod_is_asked_only_when_it_is_ready():
    sim = served()
    sim.until_published()
    sim.roll_first(message="", ready=False)
    sim.settle()
    assert (is_paused(sim), sim.has_job("prove")) == (True, False)
    assert "held" in why(sim)[1]
    sim.serving.pop()
    sim.roll_first()
    sim.settle()
    assert sim.has_job("prove")


def test_first_pod_that_answers_like_other_weights_is_the_last():
    sim = held()
    says(sim, Result.REJECTED, "OutputMismatch")
    assert (sim.annotation, is_paused(sim)) == (PREVIOUS, False), "both in one write"
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "OutputMismatch", "first pod")
    assert not sim.has_job("promote")


def test_first_pod_that_cannot_fetch_is_the_last():
    sim = served()
    sim.until_published()
    sim.roll_first(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.settle()
    assert (sim.annotation, is_paused(sim)) == ("", False)


def test_hold_has_the_rollout_s_deadline():
    sim = held()
    sim.now += 1801
    sim.settle()
    assert (sim.annotation, is_paused(sim), sim.status.phase) == (PREVIOUS, False, "RollingBack")


def test_failed_first_pod_stays_alone_where_a_person_decides():
    sim = held("Manual")
    says(sim, Result.REJECTED, "OutputMismatch")
    assert (sim.annotation, is_paused(sim), why(sim, "Stalled")[0]) == (CANDIDATE, True, "OutputMismatch")
    sim.body["spec"]["serving"]["rollback"] = "Automatic"
    sim.settle()
    assert (sim.annotation, is_paused(sim)) == (PREVIOUS, False)


@pytest.mark.parametrize("rollback", ["Automatic", "Manual"])
def test_update_that_is_deleted_in_the_hold_goes_back(rollback: str):
    """Also with Manual: what is half rolled out could stay so only as long as somebody holds it."""
    sim = held(rollback)
    sim.delete()
    sim.settle()
    assert (sim.annotation, is_paused(sim)) == (PREVIOUS, False)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


@pytest.mark.parametrize(("annotation", "phase", "reason"), [
    (PREVIOUS, "RolledBack", "ManualRollback"), ("s3://models/x@sha256:0", "Failed", "Superseded"),
])  # fmt: skip
def test_annotation_that_somebody_changes_in_the_hold_stays_and_is_not_held(annotation: str, phase: str, reason: str):
    sim = held()
    sim._annotate(annotation)
    sim.settle()
    assert_failed(sim, phase, reason)
    assert (sim.annotation, is_paused(sim)) == (annotation, False)


def test_hold_that_somebody_ends_is_not_begun_again():
    sim = held()
    assert sim.deployment is not None
    sim.deployment["spec"]["paused"] = False
    sim.settle()
    assert sim.status.rollout is not None
    assert sim.status.rollout.hold is not None
    assert not sim.status.rollout.hold.proved
    assert "somebody" in sim.status.rollout.hold.message
    assert not is_paused(sim)


def test_field_of_another_manager_is_not_taken_and_all_are_judged_at_the_end():
    sim = served()
    sim.until_published()
    pause = ApplyWeights("support-llm", CANDIDATE, hold=True)
    sim.refuse[ApplyWeights] = Refusal(pause, Reason.GITOPS_CONFLICT, "spec.paused belongs to argocd")
    sim.roll_first()
    sim.settle()
    sim.refuse.clear()
    assert sim.status.rollout is not None
    assert sim.status.rollout.hold is not None
    assert "argocd" in sim.status.rollout.hold.message
    assert "at the end" in sim.status.rollout.hold.message
    sim.roll()
    sim.settle()
    assert (sim.status.phase, is_paused(sim)) == ("Soaking", False)


@pytest.mark.parametrize(
    ("replicas", "strategy", "word"), [(1, "RollingUpdate", "one replica"), (3, "Recreate", "all")]
)
def test_where_nothing_is_left_to_hold_all_are_judged_at_the_end(replicas: int, strategy: str, word: str):
    deployment = raw.deployment(replicas=replicas)
    deployment["spec"]["strategy"] = {"type": strategy}
    sim = Sim(deployment=deployment)
    sim.until_held()
    assert not is_paused(sim)
    assert sim.status.rollout is not None
    assert sim.status.rollout.hold is not None
    assert word in sim.status.rollout.hold.message


def test_pause_of_somebody_else_is_waited_for():
    sim = served()
    sim.until_published()
    assert sim.deployment is not None
    sim.deployment["spec"]["paused"] = True
    sim.settle()
    assert "paused by somebody" in why(sim)[1]
    assert (sim.status.phase, is_paused(sim)) == ("RollingOut", True)


def test_hold_that_nobody_is_left_for_is_ended_before_the_next_rollout():
    sim = served()
    assert sim.deployment is not None
    sim.deployment["spec"]["paused"] = True
    sim.deployment["metadata"]["managedFields"] = [
        {"manager": FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:paused": {}}}},
    ]
    sim.until_published()
    assert (is_paused(sim), sim.annotation) == (False, CANDIDATE)


def test_status_that_is_lost_in_the_hold_is_learnt_anew():
    sim = held()
    sim.body["status"] = {}
    sim.settle()
    assert (sim.annotation, is_paused(sim), sim.status.phase) == (CANDIDATE, True, "RollingOut")
    assert sim.status.rollout is not None
    assert sim.status.rollout.previous == PREVIOUS
    says(sim, Result.SUCCEEDED, "Proved")
    assert not is_paused(sim)


@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.REJECTED])
def test_operator_that_dies_before_every_write_loses_nothing(result: Result):
    """Each pass is made twice, the first without its status: actions come before words, and are harmless twice."""
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_published()
    sim.roll_first()
    answered = False
    for _ in range(30):
        sim.look(write=False)
        sim.look()
        if sim.has_job("prove") and not answered:
            answered = True
            sim.finish("prove", raw.outcome(Step.PROMOTE, result, "Proved" if result is Result.SUCCEEDED else "Bad"))
    assert answered
    assert not is_paused(sim)
    assert sim.annotation == (CANDIDATE if result is Result.SUCCEEDED else PREVIOUS)
    assert sum(isinstance(action, AddFinalizer) for action in sim.done) >= 1


def test_letting_go_that_is_refused_is_told_and_tried_again():
    sim = held()
    sim.refuse[ApplyWeights] = Refusal(
        ApplyWeights("support-llm", CANDIDATE), Reason.CREATE_REFUSED, "a webhook said no"
    )
    says(sim, Result.SUCCEEDED, "Proved")
    assert why(sim, "Stalled")[0] == "CreateRefused"
    assert "stays paused" in why(sim)[1]
    sim.refuse.clear()
    sim.settle()
    assert not is_paused(sim)
