"""The head of an update whose candidate goes while the promote step asks, or after it could not tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import ApplyWeights, DeleteJob, Refusal
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT, PREVIOUS
from tests.operator.seen import assert_failed, promote_config, truth, why
from tests.operator.sim import Sim

STRANGER = "s3://models/support-llm/versions/000009-eeeeeeeeeeee"


def asking() -> Sim:
    """An update whose promote step asks the pods; it may move the head at any moment."""
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_promoting()
    sim.pod("promote", raw.running())
    sim.settle()
    return sim


def tell(sim: Sim, weights: str) -> None:
    """Somebody tells the target a version, and its pods follow."""
    sim._annotate(weights)
    sim.roll(digest=PARENT[1])
    sim.settle()


def crash(sim: Sim) -> None:
    ended = raw.terminated(1, "assertion", at=sim.now)
    sim.serving[0]["status"]["containerStatuses"][0] |= {"restartCount": 1, "lastState": {"terminated": ended}}
    sim.settle()


@pytest.mark.parametrize(
    ("told", "phase", "reason"),
    [(PREVIOUS, "RolledBack", "ManualRollback"), (STRANGER, "Failed", "Superseded")],
)
def test_target_that_is_told_something_else_while_the_promote_step_asks(told: str, phase: str, reason: str):
    sim = asking()
    tell(sim, told)
    assert not sim.has_job("promote"), "it would make the head of what nobody serves"
    config = promote_config(sim, "revert")
    assert (config.version, config.digest, config.parent_digest, config.pods) == (*PARENT, CHILD[1], ())
    assert (sim.status.phase, truth(sim)["Succeeded"]) == ("RollingBack", "Unknown")
    sim.finish("revert")
    sim.settle()
    assert_failed(sim, phase, reason, "the head is what it was before")
    assert sim.status.rollout is not None
    assert not sim.status.rollout.reverting, "nobody has asked for a revert"
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (told, [])


def test_target_that_was_deleted_while_the_promote_step_asks():
    sim = asking()
    sim.deployment = None
    sim.settle()
    sim.finish("revert")
    sim.settle()
    assert_failed(sim, "Failed", "TargetMissing", "the head is what it was before")


def test_promote_step_that_has_not_started_is_taken_away_and_the_head_not_asked_for():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_promoting()
    tell(sim, PREVIOUS)
    assert_failed(sim, "RolledBack", "ManualRollback")
    assert not sim.has_job("promote")
    assert not sim.has_job("revert")


def test_engine_that_ends_while_the_promote_step_asks_is_a_fault_at_once():
    sim = asking()
    crash(sim)
    assert (sim.status.phase, sim.annotation, sim.has_job("promote")) == ("RollingBack", PREVIOUS, False)
    assert not sim.has_job("revert"), "what serves goes first"
    sim.roll(digest=PARENT[1])
    sim.settle()
    sim.now += 100
    sim.finish("revert")
    sim.settle()
    assert_failed(sim, "RolledBack", "EngineCrash", ", 0 s after the fault", "the head is what it was before")


def test_promotion_that_comes_through_after_the_way_back_has_begun_is_taken_back():
    """Its Job is being deleted, and its pod uses the grace that it has."""
    sim = asking()
    sim.refuse[DeleteJob] = Refusal(DeleteJob("Job", "", ""), "", "")
    crash(sim)
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", PREVIOUS)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert promote_config(sim, "revert").digest == PARENT[1]
    sim.finish("revert")
    sim.settle()
    assert_failed(sim, "RolledBack", "EngineCrash", "the head is what it was before")


def _failed(sim: Sim, reason: str) -> None:
    sim.fail("promote", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, reason), 1))


@pytest.mark.parametrize(
    ("end", "asked"),
    [
        (lambda sim: sim.finish("promote", keep_pod=False), True),
        (lambda sim: sim.fail("promote", raw.ended(137)), True),
        (lambda sim: sim.fail("promote", raw.ended(1), "DeadlineExceeded"), True),
        (lambda sim: _failed(sim, "EngineUnreachable"), False),
        (lambda sim: sim.finish("promote", raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch")), False),
    ],
    ids=["lost", "killed", "too slow", "unreachable", "no"],
)
def test_head_is_asked_for_after_a_promote_step_that_could_not_tell(end: Callable[[Sim], None], *, asked: bool):
    sim = asking()
    while sim.annotation == CANDIDATE:
        end(sim)
        sim.settle()
        sim.now += 301
        sim.settle()
        sim.pod("promote", raw.running())
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert (sim.annotation, sim.has_job("revert"), sim.status.phase == "RollingBack") == (PREVIOUS, asked, asked)


def test_head_that_another_update_has_moved_on_is_left_and_told():
    sim = asking()
    tell(sim, PREVIOUS)
    answer = raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved", "the head is 000043")
    sim.fail("revert", raw.said(answer, 42), "PodFailurePolicy")
    sim.settle()
    assert_failed(sim, "RolledBack", "ManualRollback", "the head was not moved back: the head is 000043")


def test_candidate_that_is_told_again_is_promoted_only_after_the_head_s_way_back_is_over():
    sim = asking()
    tell(sim, PREVIOUS)
    assert sim.has_job("revert")
    sim.refuse[DeleteJob] = Refusal(DeleteJob("Job", "", ""), "", "")
    sim._annotate(CANDIDATE)
    sim.roll()
    sim.settle()
    sim.now += 31
    sim.look()
    assert (sim.annotation, sim.has_job("promote")) == (CANDIDATE, False)
    sim.refuse.clear()
    sim.settle()
    assert (sim.has_job("revert"), sim.has_job("promote")) == (False, True)


def test_deleted_update_whose_target_was_taken_back_puts_the_head_back():
    sim = asking()
    sim.delete()
    tell(sim, PREVIOUS)
    assert not sim.has_job("promote")
    sim.finish("revert")
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (PREVIOUS, [])
    assert not any(isinstance(action, ApplyWeights) for action in sim.done[-3:])


@pytest.mark.parametrize(("told", "words"), [("", "is told no version"), (STRANGER, f"is told '{STRANGER}'")])
def test_target_that_is_told_something_else_in_the_moment_of_the_promotion_is_named(told: str, words: str):
    sim = asking()
    sim._annotate(told)
    sim.finish("promote")
    sim.settle()
    assert (sim.status.phase, why(sim)[0]) == ("Succeeded", "Promoted")
    assert words in why(sim)[1]
    assert "set spec.revert to true" in why(sim)[1]
    assert "served by" not in why(sim)[1]
