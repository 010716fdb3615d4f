"""The life of an update, from top to bottom: what is known, what is said about it, what is to be done.

Pure: the same facts give the same plan, and a plan made after its own actions asks for nothing new. The old phase is
never read; it is output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from skill_contract.spec import SkillUpdateSpec
from skill_operator import status as statuses
from skill_operator.actions import Action, News, RemoveFinalizer
from skill_operator.api import MILESTONES, ConditionType, Phase, Reason, SkillUpdate
from skill_operator.conditions import put, without
from skill_operator.manifests.pod import Images
from skill_operator.observed import Observed, Question
from skill_operator.status import Condition, Status
from skill_operator.steps.analysis import analyse, learn_analysis, questions
from skill_operator.steps.approve import approve
from skill_operator.steps.beginning import (
    as_it_ended,
    engine,
    gone,
    is_active,
    noticed,
    overtaken,
    queue,
    refused,
    settled,
    suspend,
)
from skill_operator.steps.check import check, learn_check
from skill_operator.steps.hold import hold, learn_hold
from skill_operator.steps.pace import learn_rollout
from skill_operator.steps.prove import ask, learn_promotion, promote, promoted, soak
from skill_operator.steps.revert import forget, is_due, learn_revert, revert
from skill_operator.steps.roll import arrive, join, prepare, roll
from skill_operator.steps.rollback import roll_back, withdrawn
from skill_operator.steps.target import out_of_reach
from skill_operator.steps.train import learn_training, train
from skill_operator.steps.verdict import Facts, State, Verdict
from skill_operator.transitions import transitions

Stage = Callable[[Facts], Verdict | None]

LEARNING: tuple[Callable[[Facts], Status], ...] = (
    learn_check,
    learn_training,
    learn_rollout,
    learn_hold,
    learn_analysis,
    learn_promotion,
    learn_revert,
)
"""What the children say goes into the status first: once there, their pods may go."""

LIFE: tuple[Stage, ...] = (
    gone,  # deleted: let go, or first take a rollout back
    forget,  # final, and a way back that was refused or has not begun is not wanted any more
    revert,  # final, and a person wants the version before
    settled,  # final: stays as it ended
    noticed,  # new: gets a status before anything is done
    refused,  # the API server said no
    suspend,  # a person wants it to stop
    queue,  # one update of a model at a time
    engine,  # several nodes need a JobSet
    check,  # data, credentials, model: on a CPU, in seconds
    overtaken,  # another one was promoted from its parent meanwhile, or its parent was taken back
    train,  # SDFT, evaluation, publication: or rejected by a gate
    approve,  # a person wants to look first
    promoted,  # the head has moved: done
    out_of_reach,  # the target cannot be seen: its kind is not installed, or not allowed
    withdrawn,  # deleted in the middle of a rollout
    roll_back,  # the candidate failed: back, each pod proved by its digest
    prepare,  # target there, wired, healthy; what to go back to is written down
    roll,  # the target is told the candidate; a fault, a stranger's hand or the deadline ends it
    ask,  # a promote Job runs: it decides
    hold,  # the first new pod is proved before the rest follows
    arrive,  # every pod on the candidate, each proved by its digest
    analyse,  # metrics of its pods, beside those of the pods before: worse, or unknown
    soak,  # for a while, without a fault
    join,  # with the pods that came meanwhile
    promote,  # golden prompts asked, head moved
)

_READY = {State.SUCCEEDED: "True"}
_SUCCEEDED = {State.SUCCEEDED: "True", State.FAILED: "False"}


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]
    status: Mapping[str, Any]
    """The whole new status, as it goes to Kubernetes."""
    news: tuple[News, ...]
    """What the new status says for the first time."""
    alerts: tuple[News, ...]
    """What is to be told even though the status stays."""
    requeue_after: float | None
    """Seconds until the next look; None: nothing is left to do."""


def plan(update: SkillUpdate, seen: Observed, images: Images, now: float) -> Plan:
    """Returns what is to be done for an update now.

    Args:
        now: Unix seconds.
    """
    known = statuses.read_to_plan(update.status)
    if update.spec is None:
        learnt, verdict = known, as_it_ended(update, known) if known.is_final else _unreadable(update)
    else:
        facts = _learnt(Facts(update, update.spec, known, seen, images, now))
        learnt, verdict = facts.known, judge(facts)
    status = _render(update, verdict.known or learnt, verdict, now)
    return Plan(
        actions=verdict.actions,
        status=status.dump(),
        news=transitions(known, status),
        alerts=verdict.news,
        requeue_after=verdict.requeue_after,
    )


def judge(facts: Facts) -> Verdict:
    """Returns the first verdict in an update's life."""
    for stage in LIFE:
        verdict = stage(facts)
        if verdict is not None:
            return verdict
    raise AssertionError("the last stage has always something to say")


def needs_neighbours(update: SkillUpdate, seen: Observed) -> bool:
    """Returns whether a plan must not miss another update: in the queue, before a rollout, and before a way back."""
    if update.spec is None:
        return False
    facts = _facts(update, update.spec, seen, now=0)
    if facts.known.is_final:
        return facts.spec.revert and is_due(facts)
    is_before_rollout = facts.spec.serving and facts.known.rollout is None and facts.known.published
    return not is_active(facts) or bool(is_before_rollout)


def asks(update: SkillUpdate, seen: Observed, now: float) -> tuple[Question, ...]:
    """Returns what Prometheus has to be asked before a plan is made."""
    if update.spec is None:
        return ()
    return questions(_facts(update, update.spec, seen, now=now))


def _facts(update: SkillUpdate, spec: SkillUpdateSpec, seen: Observed, *, now: float) -> Facts:
    """Returns what `plan` goes by, but for the images, which only what is created needs."""
    return _learnt(Facts(update, spec, statuses.read_to_plan(update.status), seen, Images("", ""), now))


def _learnt(facts: Facts) -> Facts:
    for learn in LEARNING:
        facts = replace(facts, known=learn(facts))
    return facts


def _unreadable(update: SkillUpdate) -> Verdict:
    """A spec that the schema let through and that this operator cannot read: older or newer than its CRD."""
    return Verdict(
        phase=Phase.FAILED,
        state=State.STALLED,
        reason=Reason.INVALID_SPEC,
        message=f"spec cannot be read by this version of the operator: {update.problem}",
        actions=(RemoveFinalizer(),) if update.deleting and update.holds_finalizer else (),
        requeue_after=None,
    )


def _render(update: SkillUpdate, known: Status, verdict: Verdict, now: float) -> Status:
    """Returns the whole status: what is known, with the verdict's word on every condition."""
    conditions = [
        _condition(ConditionType.READY, _READY.get(verdict.state, "False"), verdict),
        _condition(ConditionType.SUCCEEDED, _succeeded(known, verdict), verdict),
    ]
    if verdict.state is State.WORKING:
        conditions.append(_condition(ConditionType.RECONCILING, "True", verdict))
    if verdict.state in {State.STALLED, State.FAILED}:
        conditions.append(_condition(ConditionType.STALLED, "True", verdict))
    for kind, message in verdict.marks.items():
        conditions.append(Condition(type=kind, status="True", reason=verdict.reason, message=message))
    kept = {condition.type for condition in conditions} | set(MILESTONES)
    gone = {condition.type for condition in known.conditions} - kept
    status = put(without(known, gone), update.generation, now, *conditions)
    changes = {
        "observed_generation": update.generation,
        "phase": verdict.phase.value,
        "progress": _progress(status),
    }
    return status.model_copy(update=changes)


def _condition(kind: str, truth: str, verdict: Verdict) -> Condition:
    return Condition(type=kind, status=truth, reason=verdict.reason, message=verdict.message)


def _succeeded(known: Status, verdict: Verdict) -> str:
    """What is final stays: a revert, for one, does not undo that the update had succeeded."""
    before = known.condition(ConditionType.SUCCEEDED)
    if before and known.is_final:
        return before.status
    return _SUCCEEDED.get(verdict.state, "Unknown")


def _progress(status: Status) -> str | None:
    training = status.training
    if status.is_true(ConditionType.TRAINED):
        return "100%"
    if training is None or not training.total_steps:
        return None
    return f"{100 * (training.step or 0) // training.total_steps}%"
