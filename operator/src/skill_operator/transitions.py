"""What is worth an Event: the differences between two statuses, told once each, never once a pass.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from skill_operator.actions import News
from skill_operator.api import ConditionType, Phase, Reason
from skill_operator.status import Hold, Rollout, Status, Training

_REACHED = {
    ConditionType.CHECKED: "Checked",
    ConditionType.EVALUATED: "GatePassed",
    ConditionType.PUBLISHED: "VersionPublished",
    ConditionType.ROLLED_OUT: "Promoted",
    ConditionType.REVERTED: "Reverted",
}
_WARNINGS = (ConditionType.GITOPS_CONFLICT, ConditionType.SURGE_BLOCKED)
_HARMLESS = {Reason.PREEMPTED, Reason.NODE_LOST}
_NOTES = (ConditionType.QUEUED, ConditionType.SUSPENDED)


def transitions(old: Status, new: Status) -> tuple[News, ...]:
    """Returns the news in a change of status, in the order in which they happen in an update's life."""
    return (
        *_interruption(old, new),
        *_training(old.training or Training(), new.training or Training()),
        *_milestones(old, new),
        *_rollout(old.rollout, new.rollout),
        *_marks(old, new),
    )


def _milestones(old: Status, new: Status) -> Iterator[News]:
    for kind, reason in _REACHED.items():
        condition = new.condition(kind)
        if condition and condition.status == "True" and not old.is_true(kind):
            yield News(reason, condition.message, once=True)
    evaluated = new.condition(ConditionType.EVALUATED)
    if evaluated and evaluated.status == "False" and not old.is_false(ConditionType.EVALUATED):
        yield News("GateRejected", f"{evaluated.reason}: {evaluated.message}", warning=True)
    if new.is_true(ConditionType.TRAINED) and not old.is_true(ConditionType.TRAINED):
        last = new.training.last_checkpoint_step if new.training else None
        if last is not None:
            yield News("CheckpointSaved", f"the last checkpoint is that of step {last}")


def _interruption(old: Status, new: Status) -> Iterator[News]:
    """A pod that ended before its time, while its Job goes on."""
    failure = new.failure
    if failure and failure != old.failure and not new.is_final:
        yield News(failure.reason, failure.message, warning=failure.reason not in _HARMLESS)


def _training(old: Training, new: Training) -> Iterator[News]:
    if new.attempt > old.attempt == 0:
        yield News("TrainingStarted", "the trainer runs")
    elif new.attempt > old.attempt:
        step = new.last_checkpoint_step
        yield News("Resumed", f"attempt {new.attempt} goes on from {f'step {step}' if step else 'the beginning'}")
    if new.last_checkpoint_step is not None and old.last_checkpoint_step is None:
        yield News("CheckpointSaved", f"the first checkpoint is that of step {new.last_checkpoint_step}")


def _rollout(old: Rollout | None, new: Rollout | None) -> Iterator[News]:
    if new is None:
        return
    if old is None:
        yield News("RolloutStarted", f"from {new.previous or 'the pods default'} to {new.candidate}")
    before = old.pods_verified if old else ""
    if new.pods_verified != before and not new.pods_verified.startswith("0/"):
        yield News("PodVerified", f"{new.pods_verified} pods fetched the candidate, verified it and are ready")
    if old and old.template and new.template != old.template:
        yield News("MixedChange", "somebody changed the pod template during the rollout: the soak begins anew with it")
    yield from _hold(old.hold if old else None, new.hold)
    if new.rollback and not (old and old.rollback):
        yield News("RollbackStarted", f"{new.rollback.reason}: {new.rollback.message}", warning=True)


def _hold(old: Hold | None, new: Hold | None) -> Iterator[News]:
    if new and new.since and old is None:
        yield News("RolloutHeld", "the first new pod is there: the others wait until it is proved")
    if new and new.ended and not (old and old.ended):
        yield News("FirstPodProved" if new.proved else "NotHeld", new.message)


def _marks(old: Status, new: Status) -> Iterator[News]:
    for kinds, warning in ((_WARNINGS, True), (_NOTES, False)):
        for kind in kinds:
            condition = new.condition(kind)
            if condition and old.condition(kind) is None:
                yield News(kind, condition.message, warning=warning)
    stalled, before = new.condition(ConditionType.STALLED), old.condition(ConditionType.STALLED)
    if stalled and (before is None or before.reason != stalled.reason):
        reason = new.phase if new.phase == Phase.ROLLED_BACK else stalled.reason
        yield News(reason, stalled.message, warning=True)
