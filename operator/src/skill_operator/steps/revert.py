"""Revert: on a finished update a person asks for the version before; the head goes back first, then the pods.

Pure. The head first, because that is what can be refused: a later update may stand on this one.
"""

from __future__ import annotations

from dataclasses import replace

from skill_operator.actions import Action, AddFinalizer, ApplyWeights, CreateJob, DeleteJob, RemoveFinalizer
from skill_operator.api import ConditionType, Phase, Reason
from skill_operator.conditions import without
from skill_operator.manifests.job import REVERT
from skill_operator.status import Failure, Rollout, Status
from skill_operator.steps.head import back
from skill_operator.steps.prove import begun
from skill_operator.steps.roll import lost_rollout
from skill_operator.steps.target import come_back, out_of_reach, who_rolls
from skill_operator.steps.verdict import (
    LOOK_AGAIN_SECONDS,
    ROLLOUT_SECONDS,
    Facts,
    State,
    Verdict,
    missed,
    reached,
)


def learn_revert(facts: Facts) -> Status:
    """Returns what is known of the way back: that its step has begun."""
    job, known = facts.seen.job(REVERT), facts.known
    # Of an update that did not succeed it puts back what a promote step may have moved (see `head`).
    is_asked = known.is_true(ConditionType.SUCCEEDED) and not known.condition(ConditionType.REVERTED)
    if job is None or job.deleting or not is_asked:
        return known
    return begun(facts, job, "reverting")


def is_due(facts: Facts) -> bool:
    """Returns whether the way back is still to be begun."""
    return facts.known.condition(ConditionType.REVERTED) is None and facts.seen.job(REVERT) is None


def has_begun(facts: Facts) -> bool:
    """Returns whether the head may be back: from there on the way back is finished, whatever the spec says."""
    job, rollout = facts.seen.job(REVERT), facts.known.rollout
    there = job is not None and not job.deleting
    return facts.known.condition(ConditionType.REVERTED) is None and (there or bool(rollout and rollout.reverting))


def revert(facts: Facts) -> Verdict | None:
    """`spec.revert` on a succeeded update: head and pods back to the version before, or why not."""
    known = facts.known
    if not known.is_true(ConditionType.SUCCEEDED) or not (facts.spec.revert or has_begun(facts)):
        return None
    reverted = known.condition(ConditionType.REVERTED)
    if reverted:
        phase = Phase.REVERTED if reverted.status == "True" else Phase.SUCCEEDED
        state = State.SUCCEEDED if reverted.status == "True" else State.STALLED
        return Verdict(
            phase=phase,
            state=state,
            reason=reverted.reason,
            message=reverted.message,
            actions=_let_go(facts),
            requeue_after=None,
        )
    rollout = known.rollout or lost_rollout(facts)
    if rollout is None or known.published is None or known.parent is None:
        return _refuse(facts, "this update has rolled out nothing, so there is no version before it to go back to")
    return _wait(facts) or _move_head(facts) or _unseen(facts) or _bring_back(facts, rollout)


def forget(facts: Facts) -> Verdict | None:
    """A way back that was refused or has not begun, and is not wanted any more: it can be asked for again."""
    known = facts.known
    stands_back = known.is_true(ConditionType.SUCCEEDED) and known.is_false(ConditionType.READY)
    if facts.spec.revert or not stands_back or known.published is None or has_begun(facts):
        return None
    jobs = [job for job in facts.seen.jobs if job.step == REVERT and not job.deleting]
    rollout = known.rollout and known.rollout.model_copy(update={"reverting": False})
    return Verdict(
        phase=Phase.SUCCEEDED,
        state=State.SUCCEEDED,
        reason=Reason.PROMOTED,
        message=f"{known.published.version} stays: the way back is not wanted any more",
        known=without(known, [ConditionType.REVERTED]).model_copy(update={"rollout": rollout}),
        actions=tuple(DeleteJob(job.kind, job.name, job.uid) for job in jobs),
        requeue_after=0,
    )


def _wait(facts: Facts) -> Verdict | None:
    """Two on one target would take each other for strangers; of two that go back, the head decides."""
    other = who_rolls(facts)
    if not is_due(facts) or other is None or other.is_reverting:
        return None
    return _going_back(f"waits: SkillUpdate {other.namespace}/{other.name} is rolling the target")


def _refuse(facts: Facts, message: str) -> Verdict:
    known = missed(facts, facts.known, ConditionType.REVERTED, Reason.REVERT_REFUSED, message)
    return Verdict(
        phase=Phase.SUCCEEDED,
        state=State.STALLED,
        reason=Reason.REVERT_REFUSED,
        message=message,
        known=known,
        actions=_let_go(facts),
        requeue_after=None,
    )


def _let_go(facts: Facts) -> tuple[Action, ...]:
    return (RemoveFinalizer(),) if facts.update.holds_finalizer else ()


def _move_head(facts: Facts) -> Verdict | None:
    found = back(facts, _going_back)
    if found is None:
        return None
    if isinstance(found, Failure):
        return _refuse(
            facts,
            f"the head was not moved back, and serving is unchanged: {found.message}; "
            "to try again, set spec.revert to false and then to true",
        )
    starts = any(isinstance(action, CreateJob) for action in found.actions)
    # Held first: deleted with the head back and the pods not, they would be left to serve what is not the head.
    hold = () if not starts or facts.update.holds_finalizer or facts.update.deleting else (AddFinalizer(),)
    return replace(found, actions=(*hold, *found.actions))


def _going_back(message: str, *actions: Action) -> Verdict:
    return Verdict(
        phase=Phase.REVERTING,
        reason=Reason.REVERTING,
        message=message,
        actions=actions,
        requeue_after=1 if actions else ROLLOUT_SECONDS,
    )


def _unseen(facts: Facts) -> Verdict | None:
    verdict = out_of_reach(facts)
    return replace(verdict, phase=Phase.REVERTING) if verdict else None


def _bring_back(facts: Facts, rollout: Rollout) -> Verdict:
    target = facts.seen.target
    if target is None:
        return _done(facts, "the head is back; the target is gone")
    refusal = next((r for r in facts.seen.refusals if isinstance(r.action, ApplyWeights)), None)
    if refusal:
        return Verdict(
            phase=Phase.REVERTING,
            state=State.STALLED,
            reason=refusal.reason,
            message=refusal.message,
            requeue_after=LOOK_AGAIN_SECONDS,
        )
    if target.weights == rollout.candidate:
        apply = ApplyWeights(target.place, rollout.previous)
        return _going_back(f"{target.title} is told the version before", apply)
    if target.weights != rollout.previous:
        return _done(facts, f"the head is back; {target.title} serves {target.weights!r}, by somebody else's hand")
    is_back, words = come_back(target, rollout)
    return _done(facts, f"the head is back; {words}") if is_back else _arriving(facts, words)


def _arriving(facts: Facts, words: str) -> Verdict:
    """Pods that do not come back in time are told aloud; the way back goes on."""
    job, serving = facts.seen.job(REVERT), facts.spec.serving
    since = job.finished if job else None
    if serving is None or since is None or facts.now <= since + serving.progress_deadline_seconds:
        return _going_back(words)
    return Verdict(
        phase=Phase.REVERTING,
        state=State.STALLED,
        reason=Reason.ROLLBACK_FAILED,
        message=f"the head is back, and after {serving.progress_deadline_seconds} s the target is not: {words}",
        requeue_after=ROLLOUT_SECONDS,
    )


def _done(facts: Facts, message: str) -> Verdict:
    known = reached(facts, facts.known, ConditionType.REVERTED, Reason.REVERTED, message)
    return Verdict(
        phase=Phase.REVERTED,
        state=State.SUCCEEDED,
        reason=Reason.REVERTED,
        message=message,
        known=known,
        actions=_let_go(facts),
        requeue_after=None,
    )
