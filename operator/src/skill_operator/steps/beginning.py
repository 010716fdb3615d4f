"""Before any work: is the object readable, wanted, and is it its turn?

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from skill_contract.manifest import VersionRef
from skill_contract.step import Step
from skill_operator.actions import CreateJob, DeleteJob, RemoveFinalizer
from skill_operator.api import ConditionType, Phase, Reason, SkillUpdate
from skill_operator.conditions import ended_as
from skill_operator.neighbours import model_key
from skill_operator.observed import Neighbour
from skill_operator.status import Failure, Status
from skill_operator.steps.revert import has_begun
from skill_operator.steps.target import is_late
from skill_operator.steps.verdict import LOOK_AGAIN_SECONDS, RESYNC_SECONDS, Facts, State, Verdict, fail


def gone(facts: Facts) -> Verdict | None:
    """A deleted update: nothing new is started, and what is half done is brought to an end.

    A rollout in its middle is taken back (see `rollback`), a revert whose head may be back is finished (see `revert`).
    """
    if not facts.update.deleting:
        return None
    rollout = facts.known.rollout
    is_rolling = rollout is not None and not facts.known.is_final
    is_going_back = has_begun(facts) and not is_late(facts)
    if facts.update.holds_finalizer and (is_rolling or is_going_back):
        return None
    actions = (RemoveFinalizer(),) if facts.update.holds_finalizer else ()
    return Verdict(
        phase=Phase(facts.known.phase or Phase.PENDING),
        state=State.HELD,
        reason=Reason.DELETING,
        message="deleted: its Jobs go with it; weights and serving stay as they are",
        actions=actions,
        requeue_after=None,
    )


def settled(facts: Facts) -> Verdict | None:
    """A final update stays as it ended; what is left is to let go of it."""
    return as_it_ended(facts.update, facts.known) if facts.known.is_final else None


def as_it_ended(update: SkillUpdate, known: Status) -> Verdict:
    """Returns the verdict that a final update has already: its spec is not asked any more."""
    ready = known.condition(ConditionType.READY)
    return Verdict(
        phase=ended_as(known),
        state=State.SUCCEEDED if known.is_true(ConditionType.SUCCEEDED) else State.FAILED,
        reason=ready.reason if ready else Reason.PROMOTED,
        message=ready.message if ready else "",
        actions=(RemoveFinalizer(),) if update.holds_finalizer else (),
        marks={c.type: c.message for c in known.conditions if c.type == ConditionType.GITOPS_CONFLICT},
        requeue_after=None,
    )


def noticed(facts: Facts) -> Verdict | None:
    """A new object: it gets its first status before anything is done, so that no tool takes it for healthy."""
    if facts.known.condition(ConditionType.READY):
        return None
    return Verdict(
        phase=Phase.PENDING,
        reason=Reason.NOTICED,
        message="the operator has seen this update",
        requeue_after=0,
    )


def refused(facts: Facts) -> Verdict | None:
    """The API server refused what the plan asked for: said at once, tried again later."""
    creations = [refusal for refusal in facts.seen.refusals if isinstance(refusal.action, CreateJob)]
    if not creations:
        return None
    return Verdict(
        phase=Phase(facts.known.phase or Phase.PENDING),
        state=State.STALLED,
        reason=creations[0].reason,
        message=creations[0].message,
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def suspend(facts: Facts) -> Verdict | None:
    """`spec.suspend`: the step is stopped and goes on from its checkpoint later; a rollout is finished first."""
    if not facts.spec.suspend or facts.known.rollout is not None:
        return None
    return Verdict(
        phase=Phase.SUSPENDED,
        state=State.HELD,
        reason=Reason.SUSPENDED,
        message="spec.suspend is true: set it to false to go on from the last checkpoint",
        actions=_stop(facts),
        marks={ConditionType.SUSPENDED: "spec.suspend is true"},
        requeue_after=RESYNC_SECONDS,
    )


def is_active(facts: Facts) -> bool:
    """Returns True for an update that has left the queue."""
    known = facts.known
    waits = known.is_true(ConditionType.QUEUED) or known.is_true(ConditionType.SUSPENDED)
    return known.start_time is not None and not waits


def queue(facts: Facts) -> Verdict | None:
    """One update of a model repository at a time, the oldest first; one that has begun goes before one that has not.

    Two that begin in the same instant, under two operators, are both let through: the compare-and-swap of the
    repository's head decides between them.
    """
    if is_active(facts):
        return None
    model = model_key(facts.spec.model.uri)
    update = facts.update
    place = (update.created, update.namespace, update.name)
    before = [other for other in _others(facts) if not other.stands_aside and (other.is_active or other.place < place)]
    if not before:
        return _enter(facts)
    first = min(before, key=lambda other: (not other.is_active, other.place))
    message = f"{len(before)} before it for {model}: waits for {first.namespace}/{first.name}"
    return Verdict(
        phase=Phase.QUEUED,
        reason=Reason.QUEUED,
        message=message,
        marks={ConditionType.QUEUED: message},
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def overtaken(facts: Facts) -> Verdict | None:
    """Another update moved the head away from the parent of this one: nothing made from there can become the head.

    One that was promoted from there too, as only one that stood aside, or that let one pass, lives to see; or the one
    that had made the parent, and has taken it back. Across clusters, or where two were equally fast, the promote step
    says the same.
    """
    parent, checked = facts.known.parent, facts.known.condition(ConditionType.CHECKED)
    has_ended_badly = facts.known.condition(ConditionType.TRAINED) is not None and facts.known.published is None
    if parent is None or checked is None or has_ended_badly or facts.known.rollout or facts.seen.job(Step.PROMOTE):
        return None
    since = checked.last_transition_time  # then the parent was the head: RFC 3339 in UTC sorts by time
    why = next((why for other in _others(facts) if (why := _moved_away(other, parent, since))), "")
    if not why:
        return None
    message = f"{why}: create a new SkillUpdate to train from the head that there is now"
    return fail(facts, Failure(reason=Reason.HEAD_MOVED, message=message), actions=_stop(facts))


def _others(facts: Facts) -> Iterator[Neighbour]:
    """Returns the other updates of the same model repository."""
    model = model_key(facts.spec.model.uri)
    return (other for other in facts.seen.neighbours if other.uid != facts.update.uid and other.model == model)


def _moved_away(other: Neighbour, parent: VersionRef, since: str) -> str:
    """Returns how another update has moved the head away from a version after a moment; empty where it has not."""
    name = f"{other.namespace}/{other.name}"
    if other.promoted_from == parent.digest and other.promoted_at >= since:
        return f"{name} was promoted meanwhile, from {parent.version} as this update would be"
    if other.took_back == parent.digest and other.took_back_at >= since:
        return (
            f"{name} was reverted meanwhile: {parent.version}, from which this update trains, is not the head any more"
        )
    return ""


def _stop(facts: Facts) -> tuple[DeleteJob, ...]:
    """Gives back what the Jobs that still run hold."""
    running = (job for job in facts.seen.jobs if not job.is_over and not job.deleting)
    return tuple(DeleteJob(job.kind, job.name, job.uid) for job in running)


def _enter(facts: Facts) -> Verdict:
    """Its turn: recorded before the first Job, so that the next in the queue sees it."""
    return Verdict(
        phase=Phase.CHECKING,
        reason=Reason.CHECKING,
        message="its turn has come",
        known=facts.learn(start_time=facts.known.start_time or facts.time),
        requeue_after=0,
    )


def engine(facts: Facts) -> Verdict | None:
    """Several nodes train as a JobSet: said before the check, and gone as soon as the cluster has learnt the word."""
    nodes = facts.spec.training.nodes
    if nodes == 1 or facts.seen.serves_jobset or facts.known.condition(ConditionType.TRAINED):
        return None
    return Verdict(
        phase=Phase.PENDING,
        state=State.STALLED,
        reason=Reason.JOBSET_MISSING,
        message=(
            f"spec.training.nodes is {nodes}, and this cluster does not serve JobSet (jobset.x-k8s.io/v1alpha2): "
            "install it (https://jobset.sigs.k8s.io/docs/installation), and this update goes on by itself; or create "
            "a new one with nodes: 1"
        ),
        requeue_after=LOOK_AGAIN_SECONDS,
    )
