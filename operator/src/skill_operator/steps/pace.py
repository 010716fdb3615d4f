"""Pace: how far a rollout has come, and until when it has to come further.

Pure. Only what is more than there has been before is progress: a pod that goes and comes back renews nothing, so that
every rollout ends. While somebody holds it on purpose, time does not run.
"""

from __future__ import annotations

from skill_contract.step import Step
from skill_operator.api import ConditionType, to_rfc3339, to_unix
from skill_operator.observed import ServingPod, Target
from skill_operator.status import MOST_PODS, Rollout, Soak, Status
from skill_operator.steps.target import fault, is_all, verified
from skill_operator.steps.verdict import Facts, deadline, published

Changes = dict[str, object]
SOAKS = 3
"""For how many soaks, each with the time in which pods and metrics have to come round, there is time in all: one may be
lost at its worst moment, and the next one hold."""


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
        **_soaking(facts, rollout, target, on_candidate),
    }
    if rollout.template and target.template != rollout.template:  # somebody's own rollout, in the middle of ours
        changes |= {"verified_at": None, "soak": None, "most_verified": 0, "deadline": deadline(facts)}
    return facts.learn(rollout=rollout.model_copy(update=changes))


def _further(facts: Facts, rollout: Rollout, target: Target, count: int) -> Changes:
    """More pods than ever are on the candidate: it has its time again."""
    still_held = rollout.hold is not None and rollout.hold.ended is not None and target.is_paused_by_us
    if count <= rollout.most_verified or still_held:  # what is live is counted anew from the moment it is let go
        return {}
    return {"most_verified": count, "deadline": max(rollout.deadline, deadline(facts))}


def _held(facts: Facts, rollout: Rollout, target: Target) -> Changes:
    """While the target's own controller holds on purpose, or it has no pods to have, time does not run.

    Put off long before it is up, so that the status is not written at each look.
    """
    until, serving = to_unix(rollout.deadline), facts.spec.serving
    if not (target.held or target.replicas == 0) or until is None or serving is None:
        return {}
    return {"deadline": deadline(facts)} if until - facts.now < serving.progress_deadline_seconds / 2 else {}


def _soaking(facts: Facts, rollout: Rollout, target: Target, on_candidate: tuple[ServingPod, ...]) -> Changes:
    """Returns since when all pods serve, and until when they have to.

    One pod that is lost in the soak begins it anew: what counts is a span in which all served. A fault is no loss: when
    it happened is held against the soak in which it did. No loss is either what an autoscaler does: a pod that comes
    beside those that serve on, or goes where fewer are wanted.
    """
    soak = rollout.soak
    if target.replicas == 0:  # somebody has ended it: what follows is another story
        return {"verified_at": None, "soak": None}
    if is_all(target, on_candidate):
        names = tuple(sorted(pod.name for pod in on_candidate))[:MOST_PODS]
        soak = (soak or Soak(until=_end_of_soaks(facts))).model_copy(update={"pods": names})
        return {"verified_at": rollout.verified_at or facts.time, "soak": soak}
    if rollout.verified_at is None or fault(target, rollout):
        return {}
    if soak is None or facts.seen.job(Step.PROMOTE):  # it had held, and more was asked: another story, too
        return {"verified_at": None, "soak": None, "deadline": deadline(facts)}
    gone = set(soak.pods) - {pod.name for pod in on_candidate}
    if not gone or len(on_candidate) >= target.replicas:
        return {}
    return {"verified_at": None, "soak": soak.without(sorted(gone)), "deadline": min(deadline(facts), soak.until)}


def _end_of_soaks(facts: Facts) -> str:
    serving = facts.spec.serving
    assert serving is not None
    return to_rfc3339(facts.now + SOAKS * (serving.soak_seconds + serving.progress_deadline_seconds))


def is_everywhere(facts: Facts, rollout: Rollout, target: Target) -> bool:
    """Returns whether every pod is on the candidate now, also those that came in the soak."""
    return is_all(target, verified(target, rollout.candidate, published(facts).digest))


def time_is_up(facts: Facts, rollout: Rollout, target: Target) -> bool:
    """Returns whether a rollout that is not complete has had its time."""
    if rollout.verified_at is None:
        until = rollout.deadline
    elif rollout.soak is None or is_everywhere(facts, rollout, target):
        return False
    else:
        until = rollout.soak.until
    end = to_unix(until)
    return end is not None and facts.now > end


def unsteady(facts: Facts, rollout: Rollout) -> str:
    """Returns how pods went away again and again until the last end of soak or watch; empty where they did not."""
    soak, serving, held = rollout.soak, facts.spec.serving, rollout.hold
    if held and held.lost and not held.ended:
        return (
            f"the first new pod was proved and went away {held.lost} times before it had been watched for long enough"
        )
    end = to_unix(soak.until) if soak else None
    if soak is None or serving is None or end is None or facts.now <= end or not soak.lost:
        return ""
    who = ", ".join(f"{each.pod} {each.times} times" for each in reversed(soak.lost))
    return f"the soak of {serving.soak_seconds} s was broken {soak.begun - 1} times, because pods went away: {who}"
