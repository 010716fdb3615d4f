"""Deployment (apps/v1): the usual target."""

from __future__ import annotations

from dataclasses import replace

from skill_contract.spec import SkillUpdateSpec
from skill_operator.api import to_unix
from skill_operator.manifests import serving
from skill_operator.reading import true_conditions
from skill_operator.targets.kind import Raw, Standing, is_seen, of_one_template, owner, room

NO_PODS = "it has 0 replicas, so that no pod can show what it serves: scale it up"


class Deployment:
    name, api_version, plural = "Deployment", "apps/v1", "deployments"
    switch = site = ""

    def behind(self, _: Raw, /) -> str:
        return ""

    def read(self, raw: Raw, _: Raw | None, /) -> Standing:
        uncreated, uncreated_since = uncreated_pods(raw)
        return replace(
            of_one_template(self, raw, rollout_state(raw)),
            pauser=_pauser(raw),
            unheld=_unheld(raw["spec"].get("strategy") or {}),
            room=_room(raw["spec"]),
            uncreated=uncreated,
            uncreated_since=uncreated_since,
        )

    def wiring(self, spec: SkillUpdateSpec) -> str:
        return f"add to its pod template:\n{serving.wiring(spec)}"


def _pauser(deployment: Raw) -> str:
    if not deployment["spec"].get("paused"):
        return ""
    return owner(deployment, ("spec", "paused")) or "somebody"


def _unheld(strategy: Raw) -> str:
    return "strategy Recreate replaces all pods at once" if strategy.get("type") == "Recreate" else ""


def _room(spec: Raw) -> str:
    strategy = spec.get("strategy") or {}
    rolling = {"maxSurge": 0} if strategy.get("type") == "Recreate" else strategy.get("rollingUpdate") or {}
    setting = "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}} in the Deployment"
    return room(Deployment.name, setting, rolling, spec.get("replicas", 1))


def uncreated_pods(raw: Raw) -> tuple[str, float | None]:
    """Returns why pods are not even created, and since when (Unix seconds), by what a controller of ReplicaSets says.

    Source: kube-controller-manager, deployment/sync.go, `calculateStatus`: the condition of a ReplicaSet, passed on.
    """
    refused = true_conditions(raw).get("ReplicaFailure") or {}
    return refused.get("message", ""), to_unix(refused.get("lastTransitionTime"))


def rollout_state(deployment: Raw) -> tuple[bool, str]:
    """Returns whether a Deployment stands still on its newest template, and how far it is in words.

    Source: `kubectl rollout status` (kubectl, DeploymentStatusViewer), plus availability.
    """
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    total, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    if not wanted:
        return is_seen(deployment) and not total, NO_PODS
    if deployment["spec"].get("paused"):
        return False, f"it is paused by {_pauser(deployment)}"
    if not is_seen(deployment):
        return False, "its newest template has not been seen by the Deployment controller yet"
    settled = updated == wanted and total == wanted and available == wanted
    return settled, f"{updated} of {wanted} replicas updated, {available} available, {total} in all"
