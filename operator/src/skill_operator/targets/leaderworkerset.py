"""LeaderWorkerSet (leaderworkerset.x-k8s.io/v1): groups of pods that serve together; the leader of each answers.

All pods of a group have the weights, so all of them have to be wired and to be proved; only leaders are asked.
"""

from __future__ import annotations

from skill_contract.spec import SkillUpdateSpec
from skill_operator.actions import Place
from skill_operator.manifests import serving
from skill_operator.reading import is_true
from skill_operator.targets.deployment import NO_PODS
from skill_operator.targets.engine import draft_model, kv_cache
from skill_operator.targets.kind import Raw, Standing, containers, fetchers, fingerprint, room

_SET = "leaderworkerset.sigs.k8s.io/name"
_LEADER = ("leaderworkerset.sigs.k8s.io/worker-index", "0")


class LeaderWorkerSet:
    name, api_version, plural = "LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1", "leaderworkersets"
    switch, site = "leaderWorkerSet", "https://lws.sigs.k8s.io/docs/installation"

    def behind(self, _: Raw, /) -> str:
        return ""

    def read(self, raw: Raw, _: Raw | None, /) -> Standing:
        group = raw["spec"]["leaderWorkerTemplate"]
        # Without a template of its own a leader is made from the workers'.
        names = [name for name in ("leaderTemplate", "workerTemplate") if group.get(name)]
        templates = [group[name] for name in names]
        is_settled, state = _rollout_state(raw)
        paths = tuple(("spec", "leaderWorkerTemplate", name, "metadata", "annotations") for name in names)
        return Standing(
            annotated=raw,
            place=Place(self.api_version, self.name, self.plural, raw["metadata"]["name"], paths),
            containers=containers(templates[0]),
            kv_cache=kv_cache(templates),
            draft_model=draft_model(templates),
            fetchers=fetchers(templates),
            selector=f"{_SET}={raw['metadata']['name']}",
            replicas=raw["spec"].get("replicas", 1) * group.get("size", 1),
            is_settled=is_settled,
            state=state,
            template=fingerprint(*templates),
            unfit=_unfit(raw),
            room=_room(raw["spec"]),
            answering=_LEADER,
        )

    def wiring(self, spec: SkillUpdateSpec) -> str:
        return f"add to workerTemplate, and to leaderTemplate where there is one:\n{serving.wiring(spec)}"


def _unfit(raw: Raw) -> str:
    strategy = raw["spec"].get("rolloutStrategy") or {}
    partition = (strategy.get("rollingUpdateConfiguration") or {}).get("partition", 0)
    if partition:
        return (
            f"with rolloutStrategy.rollingUpdateConfiguration.partition {partition} its groups below number "
            f"{partition} keep what they have: set 0"
        )
    return ""


def _room(spec: Raw) -> str:
    """Source: LeaderWorkerSet v1, RollingUpdateConfiguration: `maxSurge` is 0 where nothing is said."""
    rolling = (spec.get("rolloutStrategy") or {}).get("rollingUpdateConfiguration") or {}
    setting = (
        "rolloutStrategy: {rollingUpdateConfiguration: {maxSurge: 0, maxUnavailable: 1}} in the LeaderWorkerSet, whose "
        "groups then go before new ones come"
    )
    return room(LeaderWorkerSet.name, setting, rolling, spec.get("replicas", 1), default="0")


def _rollout_state(raw: Raw) -> tuple[bool, str]:
    """Returns whether all groups are of the newest templates and ready, and how far it is in words.

    Source: LeaderWorkerSetStatus, v1. It has no observedGeneration; that each pod carries the annotation of its
    template is what tells (`steps.target.verified`).
    """
    status = raw.get("status") or {}
    wanted, total = raw["spec"].get("replicas", 1), status.get("replicas", 0)
    updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    if not wanted:
        return not total, NO_PODS
    settled = is_true(status, "Available") and total == updated == ready == wanted
    return settled, f"{updated} of {wanted} groups updated, {ready} ready, {total} in all"
