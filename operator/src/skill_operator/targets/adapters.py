"""A target whose engines take adapters while they run: a ConfigMap tells it, and its pods' agents say how far they are.

Pure. A pod template cannot tell it, for a change there replaces every pod; a ConfigMap that they mount reaches those
that run, and those that start later start with it. Which workload it is makes no difference but for its pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from skill_contract.adapters import HELD, HELD_KEY, PREVIOUS_KEY, WEIGHTS_KEY, AdapterReport
from skill_operator.actions import Place
from skill_operator.manifests.serving import adapter_config_map
from skill_operator.observed import ServingPod, Target
from skill_operator.targets.engine import shared_by_adapters
from skill_operator.targets.kind import Kind, Raw, Standing, at, owner
from skill_operator.targets.read import target

_DATA = ("data",)
_UNHELD = "the adapter answers already"


def live_target(
    kind: Kind, raw: Raw, standing: Standing, pods: Iterable[Raw], container: str, *, config_map: Raw | None
) -> Target:
    """Returns a target as `read.target` does, but as one that is told by its ConfigMap.

    Args:
        config_map: None where there is none: then it cannot be told.
    """
    standing = _told(standing, raw["metadata"]["name"], config_map)
    beside = str(at(standing.annotated, _DATA).get(PREVIOUS_KEY, ""))
    shared = shared_by_adapters(standing.kv_cache) if standing.kv_cache else ""
    seen = target(kind, raw, standing, pods, container)
    return replace(seen, is_live=True, beside=beside, shared_cache=shared)


def _told(standing: Standing, name: str, config_map: Raw | None) -> Standing:
    own = adapter_config_map(name)
    annotated = config_map or {"metadata": {"name": own}}
    place = Place(
        "v1", "ConfigMap", "configmaps", own, (_DATA,),
        key=WEIGHTS_KEY, hold=(*_DATA, HELD_KEY), hold_value=HELD, beside=(*_DATA, PREVIOUS_KEY),
    )  # fmt: skip
    is_held = at(annotated, _DATA).get(HELD_KEY) == HELD
    return replace(
        standing,
        annotated=annotated,
        place=place,
        fetchers=(own,) if config_map and own in standing.config_maps else (),
        pauser=(owner(annotated, place.hold) or "somebody") if is_held else "",
        unheld=_UNHELD,
        unfit="",
        room="",  # no pod is replaced
        keeps_broken_pods=False,
    )


def reported(seen: Target, reports: Mapping[str, AdapterReport | None], port: int) -> Target:
    """Returns a target with what its pods' agents say.

    Args:
        reports: by the pods' names; None from one that does not answer.
        port: at which they were asked.
    """
    silent = [pod.name for pod in seen.pods if not pod.deleting and reports.get(pod.name) is None]
    more = f"; the agent of pod {silent[0]} does not answer at port {port}" if silent else ""
    pods = tuple(_as_reported(pod, reports.get(pod.name), is_held=bool(seen.pauser)) for pod in seen.pods)
    return replace(seen, pods=pods, state=seen.state + more)


def _as_reported(pod: ServingPod, report: AdapterReport | None, *, is_held: bool) -> ServingPod:
    """A pod on whose disk the ConfigMap is still as it was before is not on the version."""
    if report is None:
        return replace(pod, weights="", fetch=None, fetch_ended=None, ready=False)
    return replace(
        pod,
        weights=report.told.weights,
        fetch=report.fetch,
        fetch_ended=None,
        ready=pod.ready and report.ready and report.told.held == is_held,
        base=report.base,
    )
