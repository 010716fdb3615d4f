"""Questions about the serving target that several stages ask: on which version are its pods, and what is wrong.

Pure. "On a version" means one thing only: the pod was told the version by its own annotation, its fetch container
reports that version's digest, and it is ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from skill_operator.actions import ApplyWeights
from skill_operator.api import FIELD_MANAGER, ConditionType, Phase, Reason, to_rfc3339, to_unix
from skill_operator.manifests.serving import digest_in
from skill_operator.neighbours import target_key
from skill_operator.observed import Neighbour, ServingPod, Target
from skill_operator.status import MOST_PODS, Ended, Rollout
from skill_operator.steps.verdict import LOOK_AGAIN_SECONDS, Facts, State, Verdict

FATAL_FETCHES = frozenset({
    "DigestMismatch", "NotFound", "NoSpace", "AccessDenied", "BaseMismatch", "AdapterRefused",
})  # fmt: skip
"""What another try cannot mend; any other failed fetch (the store is away) is waited for until the deadline."""
CRASHES = 3
"""Restarts of an engine after which it will not come up."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a version must not be served."""

    reason: str
    message: str
    at: float | None = None
    """When it happened by the cluster's clocks, Unix seconds; None where nothing tells."""


def who_rolls(facts: Facts) -> Neighbour | None:
    """Returns another update that is rolling this one's target."""
    serving = facts.spec.serving
    key = target_key(facts.update.namespace, serving.target_ref.kind, serving.target_ref.name) if serving else ""
    others = (other for other in facts.seen.neighbours if other.uid != facts.update.uid)
    return next((other for other in others if key and other.rolling == key), None)


def out_of_reach(facts: Facts) -> Verdict | None:
    """The target cannot be looked at: nothing is concluded from that, and a deletion waits as long as it may."""
    why, rollout = facts.seen.target_out_of_reach, facts.known.rollout
    if not why or is_late(facts):
        return None
    return Verdict(
        phase=Phase.ROLLING_BACK if rollout and rollout.rollback else Phase.ROLLING_OUT,
        state=State.STALLED,
        reason=Reason.TARGET_OUT_OF_REACH,
        message=why,
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def is_late(facts: Facts) -> bool:
    """Returns whether a deleted update has been held as long as it may be."""
    deleted, serving = facts.update.deleted, facts.spec.serving
    return deleted is not None and serving is not None and facts.now > deleted + serving.progress_deadline_seconds


def standing(target: Target) -> tuple[ServingPod, ...]:
    """Returns the pods that are not on their way out."""
    return tuple(pod for pod in target.pods if not pod.deleting)


def verified(target: Target, weights: str, digest: str) -> tuple[ServingPod, ...]:
    """Returns the pods that are on a version.

    Args:
        digest: of the version's manifest; empty where it is not known, then readiness has to do.
    """
    return tuple(
        pod
        for pod in standing(target)
        if pod.weights == weights and pod.ready and (not digest or _fetched(pod) == digest)
    )


def _fetched(pod: ServingPod) -> str:
    return pod.fetch.digest if pod.fetch and pod.fetch.outcome == "Fetched" else ""


def is_all(target: Target, pods: tuple[ServingPod, ...]) -> bool:
    """Returns whether these are all pods that the target wants, and nothing else is left."""
    return target.is_settled and len(pods) == target.replicas == len(standing(target)) and target.replicas > 0


def come_back(target: Target, rollout: Rollout) -> tuple[bool, str]:
    """Returns whether a target that was told the version before a rollout serves it, and how far it is in words."""
    back = pods_back(target, rollout)
    if is_all(target, back):
        served = _digest_before(target, rollout) or "the version before"
        return True, f"all {len(back)} pods serve {served} again"
    if target.is_settled and target.replicas == 0 and not target.pods:
        return True, "with 0 replicas nothing is served, and pods to come fetch the version before"
    return False, f"{len(back)}/{target.replicas} pods are back; {how_far(target)}"


def pods_back(target: Target, rollout: Rollout) -> tuple[ServingPod, ...]:
    """Returns the pods that serve the version before a rollout."""
    return verified(target, rollout.previous, _digest_before(target, rollout))


def _digest_before(target: Target, rollout: Rollout) -> str:
    """Without an annotation pods take their repository's head, which may have moved to another update's version."""
    own = served_digest(target)
    if not rollout.previous and own and own != digest_in(rollout.candidate):
        return own
    return rollout.previous_digest or digest_in(rollout.previous)


def how_far(target: Target) -> str:
    """Returns how far a target is, with what a pod says that could not fetch."""
    refused = f"; Kubernetes creates no pod: {target.uncreated}" if target.uncreated else ""
    return f"{target.state}{trouble(target)}{refused}"


def trouble(target: Target) -> str:
    """Returns what keeps a pod from serving, to be added to a sentence; empty where nothing does."""
    pods = [pod for pod in standing(target) if not pod.ready]
    found = [next((words for pod in pods if (words := say(pod))), "") for say in _TROUBLES]
    return "".join(f"; {words}" for words in found if words)


def _no_node(pod: ServingPod) -> str:
    return f"no node takes pod {pod.name}: {pod.unschedulable}" if pod.unschedulable else ""


def _no_start(pod: ServingPod) -> str:
    return f"pod {pod.name} cannot start: {pod.blocked}" if pod.blocked else ""


def _no_fetch(pod: ServingPod) -> str:
    failed = pod.fetch if pod.fetch and pod.fetch.outcome != "Fetched" else None
    return f"a fetch failed: {failed.reason}: {failed.message}" if failed else ""


def _no_life(pod: ServingPod) -> str:
    return f"pod {pod.name}: {pod.dying}" if pod.dying and not _no_fetch(pod) else ""


_TROUBLES = (_no_node, _no_start, _no_fetch, _no_life)
"""Of each the first pod that has it is told of."""


def late_because(target: Target, weights: str) -> Reason:
    """Returns why the pods of a version were not up in time: where it is none of their own fault, what it was."""
    if target.is_live and any(not pod.weights and pod.fetch is None for pod in standing(target)):
        return Reason.ENGINE_UNREACHABLE  # an agent that has said nothing, or was not told yet
    pods = [pod for pod in standing(target) if pod.weights == weights and not pod.ready]
    if any("Insufficient" in pod.unschedulable for pod in pods):
        return Reason.SURGE_BLOCKED
    if any(pod.unschedulable or pod.blocked for pod in pods) or target.uncreated:
        return Reason.POD_NOT_CREATED
    # What ends before the version is fetched is no engine: of a live target the engine is there before.
    unfetched = any(_no_fetch(pod) or (pod.dying and pod.fetch is None and not target.is_live) for pod in pods)
    return Reason.FETCH_FAILED if unfetched else Reason.PROGRESS_DEADLINE


def surge_blocked(target: Target) -> dict[str, str]:
    """Returns the mark, with the lines to write, where a pod finds no node; none where all do."""
    stuck = next((pod for pod in standing(target) if "Insufficient" in pod.unschedulable), None)
    if stuck is None:
        return {}
    message = f"no node has room for pod {stuck.name} ({stuck.unschedulable}); {target.room or 'make room for it'}"
    return {ConditionType.SURGE_BLOCKED: message}


def let_go_on(facts: Facts, target: Target, why: str, *, back: bool = False) -> Verdict:
    """Returns the verdict that ends our hold and leaves the annotation to whoever owns it.

    Args:
        back: nobody has proved what is held: where the version before still answers, it goes on to.
    """
    refusal = next((r for r in facts.seen.refusals if isinstance(r.action, ApplyWeights)), None)
    if refusal:
        message = f"{target.title} stays paused, because letting go was refused: {refusal.message}"
        return person_needed(Reason(refusal.reason), message)
    ours = target.weights if target.weights_manager == FIELD_MANAGER else ""
    goes_back = back and target.is_live
    apply = ApplyWeights(target.place, target.beside if goes_back else ours, beside="" if goes_back else target.beside)
    return Verdict(
        phase=Phase.ROLLING_OUT,
        reason=Reason.ROLLING_OUT,
        message=f"the hold of {target.title} ends: {why}",
        actions=(apply,),
        requeue_after=0.5,
    )


def person_needed(reason: Reason, message: str, mark: ConditionType | None = None) -> Verdict:
    """Returns the verdict that a rollout stands still until somebody has done something."""
    return Verdict(
        phase=Phase.ROLLING_OUT,
        state=State.STALLED,
        reason=reason,
        message=message,
        marks={mark: message} if mark else {},
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def no_previous(facts: Facts, target: Target) -> Verdict | None:
    """Pods that wait for an annotation are never ready before a first rollout, nor would they be after a rollback."""
    if target.weights or not target.waiting_fetcher:
        return None
    message = (
        f"{target.title} has no annotation sdft.dev/weights, and its init container {target.waiting_fetcher} no "
        "SKILL_DEFAULT: its pods wait, and a rollback would have nothing to go back to; add to the container's env: "
        f'- {{name: SKILL_DEFAULT, value: "{facts.spec.model.uri}"}}'
    )
    return person_needed(Reason.NO_PREVIOUS, message)


def served_digest(target: Target) -> str:
    """Returns the digest that all standing pods fetched; empty where they differ or do not say."""
    digests = {_fetched(pod) for pod in standing(target)}
    return digests.pop() if len(digests) == 1 else ""


def fault(target: Target, rollout: Rollout) -> Fault | None:
    """Returns why the candidate cannot be served, where that is certain: its pods say so, or the target's controller.

    An engine that ends while all pods soak, or while the first new one is analysed, has crashed, even if only once.
    """
    since = rollout.watched_since
    before = {ended.uid: ended for ended in rollout.ended_before}
    for pod in standing(target):
        if pod.weights == rollout.candidate:
            found = _bad_fetch(pod) or _bad_engine(pod, before.get(pod.uid), since)
            if found:
                return found
    given_up = target.given_up if target.weights == rollout.candidate else ""
    return Fault(Reason.ROLLOUT_ABORTED, f"{target.title} {given_up}") if given_up else None


def _bad_fetch(pod: ServingPod) -> Fault | None:
    fetch = pod.fetch
    if fetch is None or fetch.outcome == "Fetched" or fetch.reason not in FATAL_FETCHES:
        return None
    where = f" ({fetch.file})" if fetch.file and fetch.file not in fetch.message else ""
    message = f"pod {pod.name} could not fetch the version: {fetch.message}{where}"
    if fetch.reason == "DigestMismatch":
        message += f"; see what else is damaged with: skill-store verify {pod.weights.partition('@')[0]}"
    return Fault(fetch.reason, message, pod.fetch_ended)


def ended_before(target: Target) -> tuple[Ended, ...]:
    """Returns what the engines of pods that are to stay have behind them; nothing of pods that are made anew."""
    if not target.is_live:
        return ()
    return tuple(
        Ended(
            uid=pod.uid,
            restarts=pod.engine_restarts,
            last_exit=to_rfc3339(pod.engine_last_exit) if pod.engine_last_exit is not None else None,
        )
        for pod in standing(target)[:MOST_PODS]
        if pod.engine_restarts or pod.engine_last_exit is not None
    )


def _bad_engine(pod: ServingPod, before: Ended | None, since: float | None) -> Fault | None:
    """Returns what is wrong with an engine; how it ended before the rollout (None: never) is left out of account."""
    last_exit = pod.engine_last_exit
    if before and last_exit == to_unix(before.last_exit):
        return None
    restarts = pod.engine_restarts - (before.restarts if before else 0)
    if pod.engine_out_of_memory:
        return Fault(Reason.ENGINE_CRASH, f"the engine of pod {pod.name} ran out of memory", last_exit)
    crashed_lately = since is not None and last_exit is not None and last_exit > since
    if restarts < CRASHES and not crashed_lately:
        return None
    return Fault(
        Reason.ENGINE_CRASH,
        f"the engine of pod {pod.name} ended {restarts} times, last: {pod.engine_message or 'no message'}",
        last_exit,
    )


def not_created(target: Target, weights: str, before: float) -> Fault | None:
    """Returns why pods of a version do not come up, where that has been so since before a time (Unix seconds).

    A quota, an admission webhook, a registry may be away for a moment, and no pod or engine has said anything yet.
    """
    since = target.uncreated_since
    if target.uncreated and since is not None and since < before:
        return Fault(Reason.POD_NOT_CREATED, f"Kubernetes creates no pod: {target.uncreated}", since)
    for pod in standing(target):
        if pod.weights == weights and pod.blocked and pod.created < before:
            return Fault(Reason.POD_NOT_CREATED, f"pod {pod.name} cannot start: {pod.blocked}", pod.created)
    return None
