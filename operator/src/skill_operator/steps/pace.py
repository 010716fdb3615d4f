"""Pace: how far a rollout has come, and until when it has to come further.

Pure. Only what is more than there has been before is progress: a pod that goes and comes back renews nothing, so that
every rollout ends. While somebody holds it on purpose, time does not run.
"""

from __future__ import annotations

from skill_operator.api import ConditionType, to_unix
from skill_operator.observed import Target
from skill_operator.status import Rollout, Status
from skill_operator.steps.target import fault, is_all, verified
from skill_operator.steps.verdict import Facts, deadline, published

Changes = dict[str, object]


def learn_rollout(facts: Facts) -> Status:
    """Returns what is known of a rollout: that its annotation has arrived, and how many pods are on the candidate."""
    rollout, target = facts.known.rollout, facts.seen.target
    if rollout is None or rollout.rollback or target is None or facts.known.is_final:
        return facts.known
    if facts.known.is_true(ConditionType.ROLLED_OUT) or target.weights != rollout.candidate:
        return facts.known
    on_candidate = verified(target, rollout.candidate, published(facts).digest)
    changes: Changes = {
        "applied_at": rollout.applied_at or facts.time,
        "pods_verified": f"{len(on_candidate)}/{target.replicas}",
        "template": target.template,
        **_further(facts, rollout, target, len(on_candidate)),
        **_held(facts, rollout, target),
        **_soaking(facts, rollout, target, everywhere=is_all(target, on_candidate)),
    }
    if rollout.template and target.template != rollout.template:  # somebody's own rollout, in the middle of ours
        changes |= {"verified_at": None, "most_verified": 0, "deadline": deadline(facts)}
    return facts.learn(rollout=rollout.model_copy(update=changes))


def _further(facts: Facts, rollout: Rollout, target: Target, count: int) -> Changes:
    """More pods than ever are on the candidate: it has its time again."""
    still_held = rollout.hold is not None and rollout.hold.ended is not None and target.is_paused_by_us
    if count <= rollout.most_verified or still_held:  # what is live is counted anew from the moment it is let go
        return {}
    return {"most_verified": count, "deadline": max(rollout.deadline, deadline(facts))}


def _held(facts: Facts, rollout: Rollout, target: Target) -> Changes:
    """While the target's own controller holds on purpose, time does not run: put off long before it is up."""
    until, serving = to_unix(rollout.deadline), facts.spec.serving
    if not target.held or until is None or serving is None:
        return {}
    return {"deadline": deadline(facts)} if until - facts.now < serving.progress_deadline_seconds / 2 else {}


def _soaking(facts: Facts, rollout: Rollout, target: Target, *, everywhere: bool) -> Changes:
    """Returns since when all pods serve, and until when they have to.

    One pod that is lost in the soak begins it anew, with its time: what counts is a span in which all served. A fault
    is no loss: when it happened is held against the soak in which it did.
    """
    if everywhere:
        return {"verified_at": rollout.verified_at or facts.time}
    if rollout.verified_at is None or fault(target, rollout):
        return {}
    return {"verified_at": None, "deadline": deadline(facts)}
