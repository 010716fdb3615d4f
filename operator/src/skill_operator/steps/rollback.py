"""Roll back: the same way, backwards, each pod proved by its digest; and loud where it does not arrive.

Pure. Why the rollout failed is written down first; from then on only the way back is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import Action, ApplyWeights, DeleteJob, DeletePod, News, NoteRollback, RemoveFinalizer
from skill_operator.api import ROLLBACK_ANNOTATION, ConditionType, Phase, Reason, to_rfc3339, to_unix
from skill_operator.conditions import taken_back_as
from skill_operator.observed import Target
from skill_operator.status import Failure, Rollback, RollbackNote, Rollout
from skill_operator.steps.answers import answer
from skill_operator.steps.head import as_before, call_off
from skill_operator.steps.target import come_back, is_late, let_go_on, pods_back, standing
from skill_operator.steps.verdict import (
    LOOK_AGAIN_SECONDS,
    ROLLOUT_SECONDS,
    Facts,
    State,
    Verdict,
    deadline,
    fail,
    missed,
)


def begin_rollback(facts: Facts, reason: str, message: str, at: float | None = None) -> Verdict:
    """Returns the verdict that writes down why the candidate goes, before anything is taken back.

    Args:
        at: when the fault happened, Unix seconds; None: it is seen as it happens.
    """
    rollout = facts.known.rollout
    assert rollout is not None
    rollback = Rollback(
        reason=reason,
        message=message,
        fault_at=to_rfc3339(min(facts.now, at or facts.now)),
        started_at=facts.time,
        deadline=deadline(facts),
    )
    return Verdict(
        phase=Phase.ROLLING_BACK,
        reason=Reason.ROLLING_BACK,
        message=f"{reason}: {message}",
        known=facts.learn(rollout=rollout.model_copy(update={"rollback": rollback, "verified_at": None})),
        actions=call_off(facts),
        requeue_after=0,
    )


def withdrawn(facts: Facts) -> Verdict | None:
    """An update that is deleted in its rollout is rolled back, and let go of when that is done or its time is up."""
    rollout = facts.known.rollout
    if not facts.update.deleting or rollout is None or facts.known.is_final:
        return None
    if is_late(facts):
        return _let_go(facts, "deleted, and the rollback did not finish in time: look at the target")
    if facts.seen.job(Step.PROMOTE) is None and rollout.promoting and rollout.rollback is None:
        # Taken away in the middle, as a deletion in the foreground does: life goes on until it has answered.
        return None
    return _promoting(facts, rollout) or _withdraw(facts, rollout)


def _promoting(facts: Facts, rollout: Rollout) -> Verdict | None:
    job, target = facts.seen.job(Step.PROMOTE), facts.seen.target
    if rollout.rollback or (target and target.weights != rollout.candidate):
        return None  # it does not decide any more
    if job and not job.is_over:
        if rollout.promoting:  # it may have moved the head: to stop it would lose the answer
            return _going_back("deleted: waits for the promote step, which decides whether the new weights stay")
        actions: tuple[Action, ...] = () if job.deleting else (DeleteJob(job.kind, job.name, job.uid),)
        return _going_back("deleted: the promote step, which has not started, is taken away first", actions)
    said = answer(job) if job else None
    if said and said.outcome and said.outcome.outcome == Result.SUCCEEDED:
        return _let_go(facts, "deleted after its promotion: the new weights stay")
    return None


def _withdraw(facts: Facts, rollout: Rollout) -> Verdict | None:
    target = facts.seen.target
    is_held = target is not None and target.is_paused_by_us  # then nothing could stay as it is without us
    if facts.spec.serving and facts.spec.serving.rollback == "Manual" and not is_held:
        return _let_go(facts, "deleted with rollback: Manual: what is served stays as it is")
    if rollout.rollback is None:
        return begin_rollback(facts, Reason.DELETING, "the SkillUpdate was deleted during its rollout")
    if facts.seen.target is None:
        return _let_go(facts, "deleted, and so is the target")
    return None


def _going_back(message: str, actions: tuple[Action, ...] = ()) -> Verdict:
    return Verdict(
        phase=Phase.ROLLING_BACK,
        reason=Reason.ROLLING_BACK,
        message=message,
        actions=actions,
        requeue_after=ROLLOUT_SECONDS,
    )


def _let_go(facts: Facts, message: str) -> Verdict:
    return Verdict(
        phase=Phase.ROLLING_BACK,
        state=State.HELD,
        reason=Reason.DELETING,
        message=message,
        actions=(RemoveFinalizer(),) if facts.update.holds_finalizer else (),
        news=(News("RolledBack", message),),
        requeue_after=None,
    )


def roll_back(facts: Facts) -> Verdict | None:
    """All pods on the version before, each by its digest and ready; then the update ends as rolled back."""
    rollout = facts.known.rollout
    if rollout is None or rollout.rollback is None:
        return None
    held = _held_for_a_person(facts, rollout.rollback)
    if held:
        return held
    if facts.seen.target is None:
        return _end(facts, rollout, "the target is gone")
    return _towards(facts, rollout, rollout.rollback, facts.seen.target)


def _towards(facts: Facts, rollout: Rollout, rollback: Rollback, target: Target) -> Verdict:
    if target.weights == rollout.candidate:
        return _take_back(facts, rollout, rollback, target)
    if target.is_paused_by_us:
        return let_go_on(facts, target, "the annotation was changed by somebody")
    if target.weights != rollout.previous:
        who = f" by {target.weights_manager}" if target.weights_manager else ""
        return _end(facts, rollout, f"the annotation was changed{who} to {target.weights!r} meanwhile, and is left so")
    is_back, words = come_back(target, rollout)
    if is_back:
        return _arrived(facts, rollout, rollback, words)
    further = _further(facts, rollback, len(pods_back(target, rollout)))
    known = facts.learn(rollout=rollout.model_copy(update={"rollback": further}))
    return replace(_on_the_way(facts, further, words), known=known, actions=_broken(target, rollout))


def _further(facts: Facts, rollback: Rollback, count: int) -> Rollback:
    """More pods than ever are back: the way back has its time again, as the way there had."""
    if count <= rollback.most_back:
        return rollback
    until = max(rollback.deadline, deadline(facts))
    return rollback.model_copy(update={"most_back": count, "deadline": until})


def _broken(target: Target, rollout: Rollout) -> tuple[DeletePod, ...]:
    """Returns the deletion of pods that never came up with the candidate, where nothing else would replace them."""
    if not target.keeps_broken_pods:
        return ()
    pods = (pod for pod in standing(target) if pod.weights == rollout.candidate and not pod.ready)
    return tuple(DeletePod(pod.name, pod.uid) for pod in pods)


def _arrived(facts: Facts, rollout: Rollout, rollback: Rollback, words: str) -> Verdict:
    """All pods are back: how long that took from the fault on is a promise that people want to see kept."""
    back = rollback.model_copy(update={"finished_at": rollback.finished_at or facts.time})
    known = facts.learn(rollout=rollout.model_copy(update={"rollback": back}))
    return _end(replace(facts, known=known), rollout, f"{words}, {_how_long(facts, back)}")


def _how_long(facts: Facts, rollback: Rollback) -> str:
    """Returns how long it took; what a person took to decide is told beside it, for in that time nothing went back."""
    until = to_unix(rollback.finished_at) or facts.now
    began = to_unix(rollback.started_at) or until
    after = f"{until - (to_unix(rollback.fault_at) or began):.0f} s after the fault"
    told = to_unix(rollback.told_at)
    if told is None or told <= began:
        return after
    return f"{after} and {until - told:.0f} s after the target was told to go back"


def _held_for_a_person(facts: Facts, rollback: Rollback) -> Verdict | None:
    serving = facts.spec.serving
    if serving is None or serving.rollback == "Automatic" or facts.update.deleting:
        return None
    message = (
        f"{rollback.message}; spec.serving.rollback is Manual, so the candidate stays on the pods that have it: set it "
        "to Automatic to go back to the version before"
    )
    return Verdict(
        phase=Phase.ROLLING_OUT,
        state=State.STALLED,
        reason=rollback.reason,
        message=message,
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def _take_back(facts: Facts, rollout: Rollout, rollback: Rollback, target: Target) -> Verdict:
    told = rollback
    if rollback.told_at is None:  # from here on it has its time: what a person took to decide is no part of it
        told = rollback.model_copy(update={"told_at": facts.time, "deadline": deadline(facts)})
    known = facts.learn(rollout=rollout.model_copy(update={"rollback": told}))
    refusal = next((r for r in facts.seen.refusals if isinstance(r.action, ApplyWeights)), None)
    if refusal:
        return replace(_on_the_way(facts, told, refusal.message), known=known)
    verdict = _on_the_way(facts, told, f"{target.title} is told the version before")
    actions: tuple[Action, ...] = (*_note(facts, told), ApplyWeights(target.place, rollout.previous))
    return replace(verdict, known=known, actions=actions, requeue_after=1)


def noted(facts: Facts) -> Rollback | None:
    """Returns why this update's candidate was taken back, where the update itself says so and its status is lost."""
    return RollbackNote.read(facts.update.annotations.get(ROLLBACK_ANNOTATION, ""), facts.update.uid)


def _note(facts: Facts, rollback: Rollback) -> tuple[NoteRollback, ...]:
    """Before the candidate's annotation goes, which until then tells that it was tried."""
    if noted(facts) == rollback:
        return ()
    return (NoteRollback(RollbackNote(uid=facts.update.uid, rollback=rollback).dump_json()),)


def _on_the_way(facts: Facts, rollback: Rollback, message: str) -> Verdict:
    until = to_unix(rollback.deadline)
    if until is None or facts.now <= until:
        return _going_back(f"{rollback.reason}: {rollback.message}. {message}")
    text = (
        f"the rollback after {rollback.reason} has not finished before its deadline and goes on: {message}; look at "
        "the target's pods"
    )
    return Verdict(
        phase=Phase.ROLLING_BACK,
        state=State.STALLED,
        reason=Reason.ROLLBACK_FAILED,
        message=text,
        news=(News(Reason.ROLLBACK_FAILED, f"{rollback.reason}: {rollback.message}", warning=True),),
        requeue_after=ROLLOUT_SECONDS,
    )


def _end(facts: Facts, rollout: Rollout, how: str) -> Verdict:
    assert rollout.rollback is not None
    reason, why = rollout.rollback.reason, rollout.rollback.message
    waiting, head = as_before(facts, partial(_on_the_way, facts, rollout.rollback))
    if waiting:
        return replace(waiting, known=facts.known)
    how = f"{how}; {head}" if head else how
    if facts.update.deleting:
        return _let_go(facts, f"deleted during its rollout: {how}")
    message = f"{why}; rolled back: {how}"
    known = missed(facts, facts.known, ConditionType.ROLLED_OUT, reason, message)
    return fail(facts, Failure(reason=reason, message=message), phase=taken_back_as(reason), known=known)
