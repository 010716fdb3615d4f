"""The picture of an update's life is true: each of its arrows is lived, and no life leaves it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skill_contract.outcome import Result
from skill_contract.progress import Stage
from skill_contract.step import Step
from skill_operator.actions import ApplyWeights, Refusal
from skill_operator.api import Phase, Reason
from tests.operator import raw
from tests.operator.picture import ARROWS, ASIDE, BEGINNING, assert_drawn, seen
from tests.operator.raw import PARENT, PREVIOUS
from tests.operator.seen import neighbour, served, trained, training
from tests.operator.sim import Sim

LATER = "2040-01-01T00:00:00Z"
Story = Callable[[], Sim]


def _evaluating(body: raw.Raw | None = None, deployment: raw.Raw | None = None) -> Sim:
    sim = trained(body)
    sim.deployment = deployment
    if deployment:
        sim.roll(digest=PARENT[1])
    sim.settle()
    training(sim, stage=Stage.EVALUATING)
    sim.settle()
    return sim


def _end(sim: Sim, step: str, result: Result = Result.SUCCEEDED, reason: str = "") -> Sim:
    sim.finish(step, raw.outcome(Step.PROMOTE if step == "revert" else Step(step), result, reason))
    sim.progress = None
    sim.settle()
    return sim


def unreadable() -> Sim:
    sim = Sim(raw.update(method={"batchSize": "many"}))
    sim.settle()
    return sim


def in_line() -> Sim:
    sim = Sim()
    sim.neighbours = (neighbour(),)
    sim.settle()
    sim.neighbours = ()
    sim.settle()
    sim.fail("check", raw.said(raw.outcome(Step.CHECK, Result.FAILED, "DataInvalid"), 42), "PodFailurePolicy")
    sim.settle()
    return sim


def applied() -> Sim:
    sim = Sim()
    sim.settle()
    return _end(sim, "check", reason="AlreadyApplied")


def _adopted(deployment: raw.Raw | None = None, **spec: object) -> Sim:
    sim = Sim(raw.update(serving=deployment is not None, **spec), deployment)
    sim.settle()
    sim.finish("check", raw.adopted())
    sim.settle()
    return sim


def adopted_and_served() -> Sim:
    return _adopted(raw.deployment(weights=PREVIOUS))


def adopted_and_published() -> Sim:
    return _adopted()


def adopted_and_unapproved() -> Sim:
    return _adopted(gates={"approval": "Manual"})


def out_of_memory() -> Sim:
    sim = trained()
    sim.settle()
    sim.pods[-1]["status"] = raw.ended(137, reason="OOMKilled")
    sim.settle()
    return sim


def without_gain() -> Sim:
    sim = trained()
    sim.settle()
    return _end(sim, "train", Result.REJECTED, "NoInContextGain")


def rejected() -> Sim:
    return _end(_evaluating(), "train", Result.REJECTED, "SkillForgotten")


def lost_while_evaluating() -> Sim:
    sim = _evaluating()
    training(sim, stage=Stage.TRAINING)
    sim.settle()
    training(sim, stage=Stage.EVALUATING)
    sim.settle()
    sim.fail("train", raw.ended(1))
    sim.progress = None
    sim.settle()
    return sim


def in_kueue() -> Sim:
    sim = trained(raw.update(serving=False, metadata={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}))
    sim.settle()
    sim.job("train")["spec"]["suspend"] = True
    sim.settle()
    sim.job("train")["spec"]["suspend"] = False
    sim.settle()
    return sim


def published() -> Sim:
    return _end(_end(_evaluating(), "train"), "promote")


def too_late() -> Sim:
    sim = _end(_evaluating(), "train")
    sim.fail("promote", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved"), 42), "PodFailurePolicy")
    sim.settle()
    return sim


def _unapproved(*, serving: bool) -> Sim:
    body = raw.update(gates={"approval": "Manual"}, serving=serving)
    return _end(_evaluating(body, raw.deployment() if serving else None), "train")


def approved_and_served() -> Sim:
    sim = _unapproved(serving=True)
    sim.body["spec"]["approved"] = True
    sim.settle()
    return sim


def approved_and_published() -> Sim:
    sim = _unapproved(serving=False)
    sim.body["spec"]["approved"] = True
    sim.settle()
    return sim


def overtaken() -> Sim:
    sim = _unapproved(serving=False)
    sim.neighbours = (neighbour(stands_aside=True, promoted_from=PARENT[1], promoted_at=LATER),)
    sim.settle()
    return sim


def reverted() -> Sim:
    sim = _rolled()
    sim.now += 31
    sim.settle()
    _end(sim, "promote")
    sim.body["spec"]["revert"] = True
    sim.settle()
    _end(sim, "revert")
    sim.roll(digest=PARENT[1])
    sim.settle()
    return sim


def revert_refused() -> Sim:
    sim = served()
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.fail("revert", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved"), 42), "PodFailurePolicy")
    sim.settle()
    return sim


def _published(rollback: str = "Automatic") -> Sim:
    """Trained, and about to be rolled out."""
    body = raw.update(serving=True)
    body["spec"]["serving"]["rollback"] = rollback
    return _end(_evaluating(body, raw.deployment(weights=PREVIOUS)), "train")


def _rolled() -> Sim:
    sim = _published()
    sim.roll()
    sim.settle()
    return sim


def pod_lost_in_the_soak() -> Sim:
    sim = _rolled()
    sim.serving.pop()
    sim.settle()
    return sim


def bad_weights(rollback: str = "Automatic") -> Sim:
    sim = _published(rollback)
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.settle()
    return sim


def rolled_back() -> Sim:
    sim = bad_weights()
    sim.roll(digest=PARENT[1])
    sim.settle()
    return sim


def held_for_a_person() -> Sim:
    return bad_weights("Manual")


def refused_in_the_soak() -> Sim:
    sim = _rolled()
    sim.now += 31
    sim.settle()
    sim.fail("promote", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved"), 42), "PodFailurePolicy")
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    return sim


def annotation_of_another() -> Sim:
    sim = _evaluating(raw.update(), raw.deployment())
    sim.refuse[ApplyWeights] = Refusal(ApplyWeights(raw.PLACE, ""), Reason.GITOPS_CONFLICT, "argocd has it")
    return _end(sim, "train")


def _by_hand(sim: Sim, weights: str) -> Sim:
    sim._annotate(weights)
    sim.settle()
    return sim


def taken_back_while_rolling() -> Sim:
    return _by_hand(_end(_evaluating(raw.update(), raw.deployment(weights=PREVIOUS)), "train"), PREVIOUS)


def taken_back_in_the_soak() -> Sim:
    return _by_hand(_rolled(), PREVIOUS)


def superseded_in_the_soak() -> Sim:
    return _by_hand(_rolled(), "s3://models/another")


STORIES: tuple[Story, ...] = (
    unreadable, in_line, applied, adopted_and_served, adopted_and_published, adopted_and_unapproved, out_of_memory,
    without_gain, rejected, lost_while_evaluating, in_kueue, published, too_late, approved_and_served,
    approved_and_published, overtaken, reverted, revert_refused, pod_lost_in_the_soak, rolled_back, held_for_a_person,
    refused_in_the_soak, annotation_of_another, taken_back_while_rolling, taken_back_in_the_soak,
    superseded_in_the_soak,
)  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_no_life_leaves_the_picture(story: Story):
    assert_drawn(story())


def test_every_arrow_is_lived():
    lived = set().union(*(seen(story()) for story in STORIES))
    assert ARROWS - lived == set()


def test_every_phase_is_drawn():
    assert {phase for arrow in ARROWS for phase in arrow} | {ASIDE} == set(Phase) | {BEGINNING}
