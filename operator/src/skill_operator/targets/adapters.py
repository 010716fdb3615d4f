"""A target whose engines take adapters while they run: a ConfigMap tells it, and its pods' agents say how far they are.

Pure. A pod template cannot tell it, for a change there replaces every pod; a ConfigMap that they mount reaches those
that run, and those that start later start with it. Which workload it is makes no difference but for its pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from skill_contract.adapters import HELD, HELD_KEY, PREVIOUS_KEY, WEIGHTS_KEY, AdapterReport
from skill_operator.actions import Place
from skill_operator.manifests.serving import adapter_config_map
from skill_operator.observed import ServingPod, Target
from skill_operator.targets.kind import Raw, Standing, at, owner

_DATA = ("data",)
_UNHELD = "the adapter answers already"


def told(standing: Standing, name: str, config_map: Raw | None) -> Standing:
    """Returns what a target says of itself, as one that is told by its ConfigMap.

    Args:
        name: of the target.
        config_map: None where there is none: then it cannot be told.
    """
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
        keeps_broken_pods=False,
    )


def beside(standing: Standing) -> str:
    """Returns the version before, as the ConfigMap has it."""
    return str(at(standing.annotated, _DATA).get(PREVIOUS_KEY, ""))


def reported(target: Target, reports: Mapping[str, AdapterReport | None], port: int) -> Target:
    """Returns a target with what its pods' agents say.

    Args:
        reports: by the pods' names; None from one that does not answer.
        port: at which they were asked.
    """
    silent = [pod.name for pod in target.pods if not pod.deleting and reports.get(pod.name) is None]
    more = f"; the agent of pod {silent[0]} does not answer at port {port}" if silent else ""
    pods = tuple(_as_reported(pod, reports.get(pod.name), is_held=bool(target.pauser)) for pod in target.pods)
    return replace(target, pods=pods, state=target.state + more)


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
