"""Hold: the rollout stops after its first new pod, and the rest follows when that one is proved, and maybe watched.

Pure. A hold is the Deployment's own `spec.paused`, ours as long as we own the field, and it is never forced. Whatever
ends a rollout ends the hold: going back gives it up in the same write. Where there can be none, all pods are judged
together at the end, and the status says why.
"""

from __future__ import annotations

from dataclasses import replace

from skill_contract.outcome import Result
from skill_operator.actions import Action, ApplyWeights, DeleteJob
from skill_operator.api import Phase, Reason, to_unix
from skill_operator.manifests.job import PROVE
from skill_operator.observed import ServingPod, Target
from skill_operator.status import MOST_PODS, Hold, Rollout, Status
from skill_operator.steps.analysis import canary_seconds, insist
from skill_operator.steps.answers import answer
from skill_operator.steps.prove import no, proving, put
from skill_operator.steps.target import is_all, let_go_on, standing, surge_blocked, trouble, verified
from skill_operator.steps.verdict import ROLLOUT_SECONDS, Facts, Verdict, deadline, published

_BY_HAND = "somebody let the held rollout go on: all pods are judged together at the end"


def learn_hold(facts: Facts) -> Status:
    """Returns what is known of the hold: that it has begun, or that somebody ended it."""
    rollout, target = facts.known.rollout, facts.seen.target
    if rollout is None or rollout.rollback or target is None or facts.known.is_final:
        return facts.known
    if target.weights != rollout.candidate:
        return facts.known
    if rollout.hold is None and target.is_paused_by_us:
        return _with(facts, rollout, Hold(since=facts.time))
    if rollout.hold and not rollout.hold.ended and not target.is_paused_by_us:
        return _with(facts, rollout, rollout.hold.model_copy(update={"ended": facts.time, "message": _BY_HAND}))
    return facts.known


def _with(facts: Facts, rollout: Rollout, hold: Hold, **changes: object) -> Status:
    return facts.learn(rollout=rollout.model_copy(update={"hold": hold, **changes}))


def hold(facts: Facts) -> Verdict | None:
    """The first new pod is proved while the old ones serve; only then do the others follow."""
    rollout, target = facts.known.rollout, facts.seen.target
    if rollout is None or target is None:
        return None
    if rollout.hold is None:
        return _begin(facts, rollout, target)
    if not rollout.hold.ended:
        since = to_unix(rollout.hold.proved_at)
        if since:
            return _watch_first(facts, rollout, rollout.hold, target, since)
        return _prove_first(facts, rollout, rollout.hold, target)
    return let_go_on(facts, target, rollout.hold.message) if target.is_paused_by_us else None


def _begin(facts: Facts, rollout: Rollout, target: Target) -> Verdict | None:
    new = tuple(pod for pod in standing(target) if pod.weights == rollout.candidate)
    if not new:  # a Deployment that is paused before makes none
        return None
    why_not = _why_not(facts, target, new)
    if why_not:
        message = f"{why_not}: all pods are judged together at the end"
        return _rolling(message, known=_with(facts, rollout, Hold(ended=facts.time, message=message)), requeue_after=0)
    if target.pauser:
        return None
    apply = ApplyWeights(target.place, rollout.candidate, hold=True)
    return _rolling("the first new pod is there: the others are held", actions=(apply,), requeue_after=0.5)


def _why_not(facts: Facts, target: Target, new: tuple[ServingPod, ...]) -> str:
    refusal = next((r for r in facts.seen.refusals if isinstance(r.action, ApplyWeights)), None)
    if refusal:
        return f"the rollout cannot be held ({refusal.message})"
    if target.replicas == 1:
        return "the one replica is the first new pod and the last"
    if target.unheld:
        return target.unheld
    return "no old pod was left to hold" if len(new) == len(standing(target)) else ""


def _prove_first(facts: Facts, rollout: Rollout, held: Hold, target: Target) -> Verdict | None:
    job = facts.seen.job(PROVE)
    said = answer(job) if job and not job.deleting else None
    if job and not job.deleting and said is None:
        return proving(facts, job)
    if said and said.outcome and said.outcome.outcome == Result.SUCCEEDED:
        return _proved(facts, rollout, held, target, said.outcome.message)
    refused = no(facts, job, said) if job and said else None
    if refused:
        return refused
    pods = verified(target, rollout.candidate, published(facts).digest)
    if is_all(target, pods) if target.is_live else pods:
        return put(facts, PROVE, pods)
    waits_for = (
        "every pod has loaded it beside what it answers with" if target.is_live else "the first new pod is ready"
    )
    message = f"held until {waits_for} and proved{trouble(target)}"
    return replace(_rolling(message), marks=surge_blocked(target))


def _proved(facts: Facts, rollout: Rollout, held: Hold, target: Target, message: str) -> Verdict:
    """The first new pod is what it should be; the others follow, or it is watched for a while before."""
    proved = held.model_copy(update={"proved": True, "message": message})
    seconds = canary_seconds(facts)
    if not seconds:
        return _let_others_follow(facts, rollout, proved, message)
    pods = tuple(pod.name for pod in verified(target, rollout.candidate, published(facts).digest))
    if not pods:
        return _prove_anew(facts, rollout, held)
    watched = proved.model_copy(update={"proved_at": facts.time, "pods": pods[:MOST_PODS]})
    until = _end_of_watch(facts, rollout, seconds)
    return _rolling(message, known=_with(facts, rollout, watched, deadline=until), requeue_after=0)


def _end_of_watch(facts: Facts, rollout: Rollout, seconds: int) -> str:
    """Until when the others have to follow: there is time for two, so that one may be lost at its worst moment.

    The analysis has a deadline of its own. What was lost once gives no time again.
    """
    assert facts.spec.serving is not None
    if rollout.hold and rollout.hold.lost:
        return rollout.deadline
    return deadline(facts, later=2 * seconds + facts.spec.serving.progress_deadline_seconds)


def _prove_anew(facts: Facts, rollout: Rollout, held: Hold) -> Verdict:
    """What was proved is gone (evicted, its node lost), and another pod has its place."""
    job = facts.seen.job(PROVE)
    again = held.model_copy(update={"proved": False, "proved_at": None, "pods": (), "lost": held.lost + 1})
    return _rolling(
        "the pod that was proved is gone: the one in its place is proved and watched from the beginning",
        known=_with(facts, rollout, again),
        actions=(DeleteJob(job.kind, job.name, job.uid),) if job and not job.deleting else (),
        requeue_after=1,
    )


def _watch_first(facts: Facts, rollout: Rollout, held: Hold, target: Target, since: float) -> Verdict:
    """It is proved, and serves beside the old ones; the others follow when its metrics are no worse than theirs."""
    seconds, what = canary_seconds(facts), "the first new pod is proved"
    if not seconds:  # somebody does not want it any more
        return _let_others_follow(facts, rollout, held, held.message)
    there = [pod for pod in standing(target) if pod.name in held.pods]
    if held.pods and not there:
        return _prove_anew(facts, rollout, held)
    not_yet = insist(facts, Phase.ROLLING_OUT, what, since + seconds, "canarySeconds")
    if not_yet:
        return not_yet
    if facts.now < since + seconds:
        analysed = _rolling(f"{what}, and is analysed for {seconds} s before the others follow")
        return replace(analysed, reason=Reason.ANALYSING)
    if there and not any(pod.ready for pod in there):
        return _rolling(f"{what}, and the others follow when it is ready again{trouble(target)}")
    found = f"; {rollout.analysis.message}" if rollout.analysis else ""
    return _let_others_follow(facts, rollout, held, f"{held.message}{found}")


def _let_others_follow(facts: Facts, rollout: Rollout, held: Hold, message: str) -> Verdict:
    ended = held.model_copy(update={"ended": facts.time, "message": message})
    # What is live answers nobody yet: pods that do, from now on, are counted from the first.
    return _rolling(message, known=_with(facts, rollout, ended, deadline=deadline(facts), most_verified=0))


def _rolling(message: str, *, known: Status | None = None, actions: tuple[Action, ...] = (),
             requeue_after: float = ROLLOUT_SECONDS) -> Verdict:  # fmt: skip
    return Verdict(
        phase=Phase.ROLLING_OUT,
        reason=Reason.ROLLING_OUT,
        message=message,
        known=known,
        actions=actions,
        requeue_after=requeue_after,
    )
