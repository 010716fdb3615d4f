"""Roll: bring the candidate to the serving target, pod by pod, with a proof from each pod that it has it.

Pure. Nothing is applied before it is written down what to go back to.
"""

from __future__ import annotations

from skill_contract.spec import Serving
from skill_operator.actions import AddFinalizer, ApplyWeights, News
from skill_operator.api import ConditionType, Phase, Reason, to_unix
from skill_operator.manifests.serving import digest_in, version_uri, weights_of
from skill_operator.observed import Target
from skill_operator.status import MOST_PODS, Failure, Published, Rollout
from skill_operator.steps.head import give_up
from skill_operator.steps.pace import is_everywhere, time_is_up, unsteady
from skill_operator.steps.preflight import preflight
from skill_operator.steps.rollback import begin_rollback, noted
from skill_operator.steps.target import (
    Fault,
    ended_before,
    fault,
    how_far,
    is_all,
    late_because,
    let_go_on,
    no_previous,
    not_created,
    person_needed,
    served_digest,
    standing,
    surge_blocked,
    who_rolls,
)
from skill_operator.steps.verdict import (
    LOOK_AGAIN_SECONDS,
    ROLLOUT_SECONDS,
    Facts,
    State,
    Verdict,
    deadline,
    fail,
    published,
)
from skill_operator.targets.read import kind_of

PATIENCE = 0.25
"""Share of the rollout's time that a quota, an admission webhook or a registry has to come round."""


def prepare(facts: Facts) -> Verdict | None:
    """Before a rollout: the target exists, reads the annotation, is healthy; what to go back to is written down."""
    serving = facts.spec.serving
    if serving is None or facts.known.rollout is not None:
        return None
    target = facts.seen.target
    if target is None:
        message = f"{serving.target_ref.title} does not exist in namespace {facts.update.namespace}: create it"
        return person_needed(Reason.TARGET_MISSING, message)
    was_held = target.is_paused_by_us and target.weights == weights_of(published(facts))
    if was_held or noted(facts):  # this status was lost in the middle
        return _write_down(facts, target)
    not_yet = _unfit(facts, serving, target) or _busy(facts, target) or preflight(facts, target)
    return not_yet or _write_down(facts, target)


def _unfit(facts: Facts, serving: Serving, target: Target) -> Verdict | None:
    if target.unfit:
        return person_needed(Reason.TARGET_UNFIT, f"{target.title}: {target.unfit}")
    if serving.container not in target.containers:
        message = (
            f"{target.title} has no container {serving.container!r}, only {', '.join(target.containers)}: "
            "spec.serving.container is immutable, so rename the container or create a new SkillUpdate"
        )
        return person_needed(Reason.CONTAINER_MISSING, message)
    if not target.is_wired:
        wiring = kind_of(target.kind).wiring(facts.spec)
        lacks = (
            f"{target.place.title} is not there, or not mounted by {target.title}, so adapters"
            if target.is_live
            else f"no init container of {target.title} reads the annotation sdft.dev/weights, so new weights"
        )
        message = f"{lacks} would never reach it; {wiring}"
        return person_needed(Reason.NOT_WIRED, message, ConditionType.NOT_WIRED)
    missing = no_previous(facts, target)
    if missing:
        return missing
    if target.shared_cache:
        message = f"{target.title}: {target.shared_cache}"
        return person_needed(Reason.SHARED_KV_CACHE, message, ConditionType.SHARED_KV_CACHE)
    return None


def _busy(facts: Facts, target: Target) -> Verdict | None:
    """Waits, until the deadline, for a target that is rolling or unhealthy: a fault there would be taken for ours."""
    other = who_rolls(facts)
    if target.is_paused_by_us and other is None:
        return let_go_on(facts, target, "the rollout that began it is gone", back=True)
    healthy = is_all(target, tuple(pod for pod in standing(target) if pod.ready))
    if healthy and other is None:
        return None
    if target.replicas == 0 and other is None:
        return _no_pods(f"waits for {target.title}: {target.state}", Reason.TARGET_BUSY)
    why = f"SkillUpdate {other.namespace}/{other.name} is rolling it" if other else target.state
    busy = facts.known.condition(ConditionType.TARGET_BUSY)
    since = to_unix(busy.last_transition_time) if busy else None
    serving = facts.spec.serving
    assert serving is not None
    if since is not None and facts.now > since + serving.progress_deadline_seconds:
        message = f"{target.title} was not healthy for {serving.progress_deadline_seconds} s: {why}"
        return fail(facts, Failure(reason=Reason.TARGET_BUSY, message=message, retriable=True))
    message = f"waits for {target.title}: {why}"
    return Verdict(
        phase=Phase.ROLLING_OUT,
        reason=Reason.TARGET_BUSY,
        message=message,
        marks={ConditionType.TARGET_BUSY: message},
        requeue_after=ROLLOUT_SECONDS,
    )


def _write_down(facts: Facts, target: Target) -> Verdict:
    candidate, rollback = weights_of(published(facts)), noted(facts)
    previous, digest = _before(facts, target)
    if target.weights == candidate:  # this status was lost in the middle of the rollout: the parent is what was before
        previous, digest = (target.beside, digest_in(target.beside)) if target.beside else _parent(facts)
    rollout = Rollout(
        previous=previous,
        previous_digest=digest,
        previous_pods=tuple(pod.name for pod in standing(target) if pod.weights == previous)[:MOST_PODS],
        ended_before=ended_before(target),
        candidate=candidate,
        pods_verified=f"0/{target.replicas}",
        started_at=facts.time,
        deadline=deadline(facts),
        rollback=rollback,
    )
    if rollback:
        phase, reason, message = Phase.ROLLING_BACK, Reason.ROLLING_BACK, f"{rollback.reason}: {rollback.message}"
    else:
        phase, reason = Phase.ROLLING_OUT, Reason.ROLLING_OUT
        message = f"rolling {target.title} to {published(facts).version}"
    return Verdict(
        phase=phase,
        reason=reason,
        message=message,
        known=facts.learn(rollout=rollout),
        actions=(AddFinalizer(),),
        news=_draft_model(target),
        requeue_after=0,
    )


def _draft_model(target: Target) -> tuple[News, ...]:
    """What nothing refuses and no proof sees: answers stay right, and may come more slowly."""
    if not target.draft_model:
        return ()
    message = (
        f"{target.draft_model} of {target.title} guesses tokens by a model that was made for the weights before: "
        "answers stay the new weights' own, but may come more slowly: watch its acceptance rate, or make it anew"
    )
    return (News("DraftModel", message, warning=True),)


def lost_rollout(facts: Facts) -> Rollout | None:
    """Returns the rollout of an update that was promoted and whose status was lost since; None where there was none."""
    if facts.spec.serving is None or facts.known.published is None or facts.known.parent is None:
        return None
    previous, digest = _parent(facts)
    candidate = weights_of(facts.known.published)
    return Rollout(
        previous=previous,
        previous_digest=digest,
        candidate=candidate,
        started_at=facts.time,
        deadline=deadline(facts),
    )


def _before(facts: Facts, target: Target) -> tuple[str, str]:
    """Returns the annotation to go back to, and the digest that its pods really have."""
    return target.weights, served_digest(target) or digest_in(target.weights) or _parent(facts)[1]


def _parent(facts: Facts) -> tuple[str, str]:
    parent = facts.known.parent
    assert parent is not None, "published without a parent"
    version = Published(
        version=parent.version, digest=parent.digest, uri=version_uri(facts.spec.model.uri, parent.version)
    )
    return weights_of(version), parent.digest


def roll(facts: Facts) -> Verdict | None:
    """The target is told the candidate; a fault, a stranger's hand or the deadline ends it."""
    rollout, target = facts.known.rollout, facts.seen.target
    if rollout is None:
        return None
    if target is None:
        return give_up(facts, Reason.TARGET_MISSING, "the target was deleted during the rollout; the version stays")
    if target.weights != rollout.candidate:
        return _elsewhere(facts, rollout, target)
    found = fault(target, rollout) or _not_created(facts, rollout, target)
    if found:
        return begin_rollback(facts, found.reason, found.message, found.at)
    if target.replicas == 0:
        return _no_pods(f"rolling {target.title}: {target.state}; it goes on then, and its time does not run")
    return _too_late(facts, rollout, target) if time_is_up(facts, rollout, target) else None


def _no_pods(message: str, reason: Reason = Reason.ROLLING_OUT) -> Verdict:
    """Somebody wants no pods, for a night, say: that is no fault of anybody's, and waited for without end."""
    return Verdict(
        phase=Phase.ROLLING_OUT, state=State.HELD, reason=reason, message=message, requeue_after=LOOK_AGAIN_SECONDS
    )


def _too_late(facts: Facts, rollout: Rollout, target: Target) -> Verdict:
    assert facts.spec.serving is not None
    far = f"{rollout.pods_verified} verified, {how_far(target)}"
    broken = unsteady(facts, rollout)
    if broken:
        return begin_rollback(facts, Reason.SOAK_UNSTEADY, f"{broken}; {far}")
    seconds = facts.spec.serving.progress_deadline_seconds
    way_out = "".join(f"; {lines}" for lines in surge_blocked(target).values())
    message = f"no further pod was verified within {seconds} s: {far}{way_out}"
    return begin_rollback(facts, late_because(target, rollout.candidate), message)


def _not_created(facts: Facts, rollout: Rollout, target: Target) -> Fault | None:
    """What has kept pods from coming for a quarter of the rollout's time is not waited for until the deadline."""
    serving = facts.spec.serving
    if serving is None or rollout.verified_at:
        return None
    patience = serving.progress_deadline_seconds * PATIENCE
    return not_created(target, rollout.candidate, facts.now - patience)


def arrive(facts: Facts) -> Verdict | None:
    """Waits for the pods, until all are on the candidate."""
    rollout, target = facts.known.rollout, facts.seen.target
    if rollout is None or rollout.verified_at or target is None:
        return None
    return Verdict(
        phase=Phase.ROLLING_OUT,
        reason=Reason.ROLLING_OUT,
        message=f"{rollout.pods_verified} pods verified; {how_far(target)}",
        marks=surge_blocked(target),
        # The first new pod is to be held before it is ready.
        requeue_after=ROLLOUT_SECONDS if rollout.hold else 1,
    )


def join(facts: Facts) -> Verdict | None:
    """Pods that came in the soak, an autoscaler's, are waited for: every pod is proved before the head moves."""
    rollout, target = facts.known.rollout, facts.seen.target
    if rollout is None or target is None or is_everywhere(facts, rollout, target):
        return None
    return Verdict(
        phase=Phase.SOAKING,
        reason=Reason.SOAKING,
        message=f"{rollout.pods_verified} pods verified; waits for those that came in the soak: {how_far(target)}",
        marks=surge_blocked(target),
        requeue_after=ROLLOUT_SECONDS,
    )


def _elsewhere(facts: Facts, rollout: Rollout, target: Target) -> Verdict:
    """The target is not told the candidate: not yet, or not any more."""
    if target.weights == rollout.previous and rollout.applied_at is None:
        return _apply(facts, rollout, target)
    if target.is_paused_by_us:
        return let_go_on(facts, target, "the annotation was changed by somebody")
    who = f" by {target.weights_manager}" if target.weights_manager else ""
    if target.weights == rollout.previous:
        message = f"{target.title} was taken back{who} during the rollout: a person decided, nothing is done"
        return give_up(facts, Reason.MANUAL_ROLLBACK, message, Phase.ROLLED_BACK)
    message = (
        f"{target.place.words} was changed{who} to {target.weights!r} during the rollout: nothing is done against it"
    )
    return give_up(facts, Reason.SUPERSEDED, message)


def _apply(facts: Facts, rollout: Rollout, target: Target) -> Verdict:
    refusal = next((r for r in facts.seen.refusals if isinstance(r.action, ApplyWeights)), None)
    if refusal and refusal.reason != Reason.GITOPS_CONFLICT:
        return person_needed(Reason(refusal.reason), refusal.message)
    if refusal:
        failure = Failure(reason=refusal.reason, message=refusal.message)
        return fail(facts, failure, marks={ConditionType.GITOPS_CONFLICT: refusal.message})
    return Verdict(
        phase=Phase.ROLLING_OUT,
        reason=Reason.ROLLING_OUT,
        message=f"rolling {target.title}",
        # Once more where the first was lost together with its operator: deleting needs the finalizer.
        actions=(*_finalizer(facts), _tell(target, rollout)),
        requeue_after=0.5,
    )


def _tell(target: Target, rollout: Rollout) -> ApplyWeights:
    """A live target loads the candidate beside what it answers with, and is held from the first moment."""
    if target.is_live:
        return ApplyWeights(target.place, rollout.candidate, hold=True, beside=rollout.previous)
    return ApplyWeights(target.place, rollout.candidate)


def _finalizer(facts: Facts) -> tuple[AddFinalizer, ...]:
    return () if facts.update.holds_finalizer or facts.update.deleting else (AddFinalizer(),)
