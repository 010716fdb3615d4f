"""Rollout (argoproj.io/v1alpha1) of Argo Rollouts: its own steps bring the new pods; the operator adds the proof.

What its controller holds on purpose is waited for, what it gives up is taken back, so that its spec and what is served
agree again: an aborted Rollout serves the version before and goes on asking for the new one.
"""

from __future__ import annotations

from skill_contract.spec import SkillUpdateSpec
from skill_operator.actions import Place
from skill_operator.api import to_unix
from skill_operator.manifests import serving
from skill_operator.targets.deployment import NO_PODS, Deployment, uncreated_pods
from skill_operator.targets.engine import draft_model, kv_cache
from skill_operator.targets.kind import (
    TEMPLATE_ANNOTATIONS,
    Raw,
    Standing,
    containers,
    fetchers,
    fingerprint,
    room,
    selector,
)

_OWN_PODS = "rollouts-pod-template-hash"
"""On every pod of a Rollout, and on no pod of the Deployment behind it."""
_WORKLOAD_GENERATION = "rollout.argoproj.io/workload-generation"
_EMPTY: Raw = {"spec": {}}


class Rollout:
    name, api_version, plural = "Rollout", "argoproj.io/v1alpha1", "rollouts"
    switch, site = "rollout", "https://argo-rollouts.readthedocs.io/en/stable/installation"

    def behind(self, raw: Raw, /) -> str:
        reference = raw["spec"].get("workloadRef") or {}
        return str(reference["name"]) if reference.get("kind") == Deployment.name else ""

    def read(self, raw: Raw, behind: Raw | None, /) -> Standing:
        holder = behind or raw
        template = holder["spec"].get("template") or _EMPTY
        phase, message = _phase(raw, behind)
        # While it is paused its controller leaves conditions as they were.
        uncreated, uncreated_since = _uncreated(raw) if phase != "Paused" else ("", None)
        labels = raw["spec"].get("selector") or holder["spec"].get("selector") or {}
        return Standing(
            annotated=holder,
            place=self._place(raw, behind),
            containers=containers(template),
            kv_cache=kv_cache([template]),
            draft_model=draft_model([template]),
            fetchers=fetchers([template]),
            selector=f"{selector(labels)},{_OWN_PODS}" if labels else "",
            replicas=raw["spec"].get("replicas", 1),
            is_settled=phase == "Healthy" and _is_complete(raw),
            state=_in_words(raw, phase, message),
            template=fingerprint(template),
            unfit=_unfit(raw, behind),
            given_up=f"was given up by its own controller: {message}" if phase == "Degraded" else "",
            held=message if phase == "Paused" else "",
            room=_room(raw["spec"]),
            uncreated=uncreated,
            uncreated_since=uncreated_since,
        )

    def _place(self, raw: Raw, behind: Raw | None) -> Place:
        if behind:
            kind = Deployment
            return Place(kind.api_version, kind.name, kind.plural, behind["metadata"]["name"], (TEMPLATE_ANNOTATIONS,))
        return Place(self.api_version, self.name, self.plural, raw["metadata"]["name"], (TEMPLATE_ANNOTATIONS,))

    def wiring(self, spec: SkillUpdateSpec) -> str:
        return f"add to its pod template, or to that of the Deployment in its workloadRef:\n{serving.wiring(spec)}"


def _unfit(raw: Raw, behind: Raw | None) -> str:
    reference = raw["spec"].get("workloadRef")
    if not reference:
        return ""
    title = f"{reference.get('kind')} {reference.get('name')}"
    if reference.get("kind") != Deployment.name:
        return f"its workloadRef is {title}: only a Deployment can be told a version"
    if behind is None:
        return f"its workloadRef {title} does not exist: create it"
    own = behind["spec"].get("replicas", 1)
    return f"{title} in its workloadRef still has {own} pods of its own: scale it to 0" if own else ""


def _room(spec: Raw) -> str:
    """Source: Argo Rollouts, CanaryStrategy: with traffic routing `maxSurge` has no say, and old pods stay."""
    strategy = spec.get("strategy") or {}
    canary, replicas = strategy.get("canary") or {}, spec.get("replicas", 1)
    if "blueGreen" in strategy:
        return (
            f"its blueGreen strategy has {replicas} new pods before the old ones go: make room for them, or use canary"
        )
    if canary.get("trafficRouting") and not canary.get("dynamicStableScale"):
        return (
            "with trafficRouting old pods stay until all new ones are there: make room for them, or set "
            "strategy.canary.dynamicStableScale: true in the Rollout"
        )
    setting = "strategy: {canary: {maxSurge: 0, maxUnavailable: 1}} in the Rollout"
    return room(Rollout.name, setting, canary, replicas)


def _uncreated(raw: Raw) -> tuple[str, float | None]:
    """Returns why pods, or the ReplicaSet that would make them, are not created, and since when.

    Source: Argo Rollouts, rollout/sync.go, `calculateRolloutConditions` and `createDesiredReplicaSet`.
    """
    for condition in (raw.get("status") or {}).get("conditions") or ():
        if condition.get("reason") == "ReplicaSetCreateError" and condition.get("status") == "False":
            return condition.get("message", ""), to_unix(condition.get("lastTransitionTime"))
    return uncreated_pods(raw)


def _phase(raw: Raw, behind: Raw | None) -> tuple[str, str]:
    """Returns Healthy, Progressing, Paused or Degraded, and why.

    Source: Argo Rollouts, `GetRolloutPhase`: what its status says holds only for what its controller has seen.
    """
    status, metadata = raw.get("status") or {}, raw["metadata"]
    if status.get("observedGeneration") != str(metadata.get("generation", 1)):
        return "Progressing", "its newest form has not been seen by the Rollouts controller yet"
    if behind and not _has_seen(raw, behind):
        return "Progressing", "the newest form of its workloadRef has not been seen by the Rollouts controller yet"
    if status.get("controllerPause") and not status.get("pauseConditions"):
        return "Progressing", "it goes on after a pause"
    return str(status.get("phase") or "Progressing"), str(status.get("message") or "")


def _has_seen(raw: Raw, behind: Raw) -> bool:
    newest = str(behind["metadata"].get("generation", 1))
    noted = (raw["metadata"].get("annotations") or {}).get(_WORKLOAD_GENERATION)
    return newest == noted == (raw.get("status") or {}).get("workloadObservedGeneration")


def _is_complete(raw: Raw) -> bool:
    """Returns whether nothing is left of an older template."""
    status, wanted = raw.get("status") or {}, raw["spec"].get("replicas", 1)
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return counts == {wanted} and status.get("stableRS") == status.get("currentPodHash")


def _in_words(raw: Raw, phase: str, message: str) -> str:
    status, wanted = raw.get("status") or {}, raw["spec"].get("replicas", 1)
    if not wanted:
        return NO_PODS
    steps = ((raw["spec"].get("strategy") or {}).get("canary") or {}).get("steps") or ()
    step = f" at step {status.get('currentStepIndex', 0) + 1} of {len(steps)}" if steps and phase == "Paused" else ""
    goes_on = f" (`kubectl argo rollouts promote {raw['metadata']['name']}` goes on)" if phase == "Paused" else ""
    why = f": {message}" if message else ""
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    counts = f"{updated} of {wanted} replicas updated, {available} available, {status.get('replicas', 0)} in all"
    return f"{phase}{step}{why}{goes_on}; {counts}"
