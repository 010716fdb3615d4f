"""StatefulSet (apps/v1): pods with names that stay, replaced from the highest number down, one after the other."""

from __future__ import annotations

from dataclasses import replace

from skill_contract.spec import SkillUpdateSpec
from skill_operator.manifests import serving
from skill_operator.targets.deployment import NO_PODS
from skill_operator.targets.kind import Raw, Standing, is_seen, of_one_template, room


class StatefulSet:
    name, api_version, plural = "StatefulSet", "apps/v1", "statefulsets"
    switch, site = "statefulSet", ""

    def behind(self, _: Raw, /) -> str:
        return ""

    def read(self, raw: Raw, _: Raw | None, /) -> Standing:
        return replace(
            of_one_template(self, raw, _rollout_state(raw)),
            unfit=_unfit(raw["spec"].get("updateStrategy") or {}),
            # It has no maxSurge: a pod goes before the one of its name comes.
            room=room(self.name, "", {"maxSurge": 0}, raw["spec"].get("replicas", 1)),
            keeps_broken_pods=raw["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady",
        )

    def wiring(self, spec: SkillUpdateSpec) -> str:
        return f"add to its pod template:\n{serving.wiring(spec)}"


def _unfit(strategy: Raw) -> str:
    """Returns why its pods would not all be replaced (apps/v1 StatefulSetUpdateStrategy)."""
    if strategy.get("type") == "OnDelete":
        return "with updateStrategy OnDelete its pods keep what they have until they are deleted: set RollingUpdate"
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    if partition:
        return (
            f"with updateStrategy.rollingUpdate.partition {partition} its pods below number {partition} keep what they "
            "have: set 0"
        )
    return ""


def _rollout_state(raw: Raw) -> tuple[bool, str]:
    """Returns whether all pods are of the newest revision and available, and how far it is in words.

    Source: `kubectl rollout status` (kubectl, StatefulSetStatusViewer), plus availability.
    """
    status = raw.get("status") or {}
    wanted, total = raw["spec"].get("replicas", 1), status.get("replicas", 0)
    if not wanted:
        return is_seen(raw) and not total, NO_PODS
    if not is_seen(raw):
        return False, "its newest template has not been seen by the StatefulSet controller yet"
    # Once all pods are of the newest revision it becomes the current one, and the count of updated pods may stay.
    is_newest = status.get("currentRevision") == status.get("updateRevision")
    updated = wanted if is_newest else status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    settled = is_newest and total == wanted and available == wanted
    return settled, f"{updated} of {wanted} replicas updated, {available} available, {total} in all"
