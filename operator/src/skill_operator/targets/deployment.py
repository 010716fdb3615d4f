"""Deployment (apps/v1): the usual target."""

from __future__ import annotations

from dataclasses import replace

from skill_contract.spec import SkillUpdateSpec
from skill_operator.api import to_unix
from skill_operator.manifests import serving
from skill_operator.reading import true_conditions
from skill_operator.targets.kind import Raw, Standing, is_seen, of_one_template, owner

NO_PODS = "it has 0 replicas, so that no pod can show what it serves: scale it up"


class Deployment:
    name, api_version, plural = "Deployment", "apps/v1", "deployments"
    switch = site = ""

    def behind(self, _: Raw, /) -> str:
        return ""

    def read(self, raw: Raw, _: Raw | None, /) -> Standing:
        refused = true_conditions(raw).get("ReplicaFailure") or {}
        return replace(
            of_one_template(self, raw, rollout_state(raw)),
            pauser=_pauser(raw),
            unheld=_unheld(raw["spec"].get("strategy") or {}),
            uncreated=refused.get("message", ""),
            uncreated_since=to_unix(refused.get("lastTransitionTime")),
        )

    def wiring(self, spec: SkillUpdateSpec) -> str:
        return f"add to its pod template:\n{serving.wiring(spec)}"


def _pauser(deployment: Raw) -> str:
    if not deployment["spec"].get("paused"):
        return ""
    return owner(deployment, ("spec", "paused")) or "somebody"


def _unheld(strategy: Raw) -> str:
    return "strategy Recreate replaces all pods at once" if strategy.get("type") == "Recreate" else ""


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
