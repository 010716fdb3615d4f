"""What the operator has to know of a kind of serving target, and nothing more: how its state is read, where its pods'
annotations are written, how a person wires it.

Pure. Everything else about a rollout is the same for all kinds, and is decided in `steps`. Rights are the chart's
(`skillupdate.rules`), the kinds that a user may name the CRD's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from skill_contract.spec import SkillUpdateSpec
from skill_operator.actions import Place
from skill_operator.api import VERSION_ANNOTATION, WEIGHTS_ANNOTATION, WEIGHTS_FIELD_PATH
from skill_operator.targets.engine import KvCache, draft_model, kv_cache

Raw = Mapping[str, Any]
TEMPLATE_ANNOTATIONS = ("spec", "template", "metadata", "annotations")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a target itself says, before its pods are looked at."""

    annotated: Raw
    """The object that the annotation is written into: most often the target."""
    place: Place
    containers: tuple[str, ...]
    """Of a pod that answers requests."""
    fetchers: tuple[str, ...]
    """The init containers that read the annotation, one of each pod template; empty where a template has none."""
    selector: str
    """Of its pods, as a query string."""
    replicas: int
    """How many pods it is to have."""
    is_settled: bool
    """Every pod is of the newest template, available, and nothing is left of an older one."""
    state: str
    """How far it is, in words."""
    unfit: str = ""
    given_up: str = ""
    held: str = ""
    keeps_broken_pods: bool = False
    pauser: str = ""
    unheld: str = "a rollout of this kind cannot be held"
    template: str = ""
    room: str = ""
    """The way out where no node has room for a pod of it; empty where the kind knows none."""
    uncreated: str = ""
    uncreated_since: float | None = None
    answering: tuple[str, str] | None = None
    """A label and its value, of the pods that requests go to; None: to all."""
    config_maps: tuple[str, ...] = ()
    """The ConfigMaps that its pods mount."""
    kv_cache: KvCache | None = None
    """Keys and values that its pods find of each other."""
    draft_model: str = ""
    """Which container guesses by a model of its own, in words; empty where none does."""


class Kind(Protocol):
    """A kind of serving target; one file in this package makes each."""

    name: str
    """As in `targetRef.kind`."""
    api_version: str
    plural: str
    switch: str
    """The chart's value below `servingTargets` that gives the operator its rights; empty: it has them always."""
    site: str
    """Where it is to be had; empty for a kind of Kubernetes' own."""

    def behind(self, raw: Raw, /) -> str:
        """Returns the name of the Deployment that holds its pod template; empty where it has that itself."""

    def read(self, raw: Raw, behind: Raw | None, /) -> Standing:
        """Returns what it says of itself.

        Args:
            behind: the Deployment that `behind` names; None where there is none.
        """

    def wiring(self, spec: SkillUpdateSpec) -> str:
        """Returns what a person has to do so that its pods read the annotation, with the lines to paste."""


def of_one_template(kind: Kind, raw: Raw, progress: tuple[bool, str]) -> Standing:
    """Returns what workloads with one pod template, a selector and replicas have in common, as those of apps/v1.

    Args:
        progress: whether it is settled, and how far it is in words.
    """
    template = raw["spec"]["template"]
    is_settled, state = progress
    return Standing(
        annotated=raw,
        place=Place(kind.api_version, kind.name, kind.plural, raw["metadata"]["name"], (TEMPLATE_ANNOTATIONS,)),
        containers=containers(template),
        fetchers=fetchers([template]),
        config_maps=config_maps(template),
        kv_cache=kv_cache([template]),
        draft_model=draft_model([template]),
        selector=selector(raw["spec"]["selector"]),
        replicas=raw["spec"].get("replicas", 1),
        is_settled=is_settled,
        state=state,
        template=fingerprint(template),
    )


def room(kind: str, setting: str, rolling: Raw, replicas: int, *, default: str = "25%") -> str:
    """Returns the way out where no node has room for a pod.

    Args:
        setting: with which its pods are replaced in place.
        rolling: what it says of `maxSurge` now; `default` where it says nothing.
        replicas: how many answer.
    """
    if str(rolling.get("maxSurge", default)) in {"0", "0%"}:
        return (
            f"this {kind} adds no pod while it rolls: somebody has taken the place of the one that went, or the new one"
            " asks for more; make room or add a node"
        )
    alone = ", which with one replica is an outage for as long as its engine takes to start" * (replicas == 1)
    return f"to replace pods in place{alone}, set {setting}"


def fetchers(templates: Iterable[Raw]) -> tuple[str, ...]:
    """Returns the init container of each pod template that reads the annotation; empty where a template has none."""
    found = [_fetcher(template) for template in templates]
    return tuple(found) if all(found) else ()


def _fetcher(template: Raw) -> str:
    for container in template["spec"].get("initContainers") or ():
        for variable in container.get("env") or ():
            field = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            if field == WEIGHTS_FIELD_PATH:
                return str(container["name"])
    return ""


def config_maps(template: Raw) -> tuple[str, ...]:
    """Returns the names of the ConfigMaps that a pod template mounts."""
    mounted = (volume.get("configMap") or {} for volume in template["spec"].get("volumes") or ())
    return tuple(source["name"] for source in mounted if source.get("name"))


def containers(template: Raw) -> tuple[str, ...]:
    """Returns the names of a pod template's containers."""
    return tuple(container["name"] for container in template["spec"].get("containers") or ())


def selector(given: Raw) -> str:
    """Returns a label selector as a query string (meta/v1 LabelSelector)."""
    terms = [f"{key}={value}" for key, value in (given.get("matchLabels") or {}).items()]
    for expression in given.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        form = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        terms.append(form[expression["operator"]])
    return ",".join(terms)


def is_seen(raw: Raw) -> bool:
    """Returns whether an object's controller has seen its newest form."""
    return bool((raw.get("status") or {}).get("observedGeneration", 0) >= raw["metadata"].get("generation", 1))


def owner(raw: Raw, *paths: tuple[str, ...]) -> str:
    """Returns who wrote one of these fields last; empty where nobody owns any (meta/v1 ManagedFieldsEntry)."""
    managers = []
    for entry in raw["metadata"].get("managedFields") or ():
        for path in paths:
            *way, last = (f"f:{step}" for step in path)
            if last in at(entry.get("fieldsV1") or {}, tuple(way)):
                managers.append((entry.get("time", ""), entry.get("manager", "")))
    return max(managers, default=("", ""))[1]


def at(raw: Raw, path: tuple[str, ...]) -> Any:
    """Returns the map at a path; an empty one where there is none."""
    return reduce(lambda inner, step: inner.get(step) or {}, path, raw)


def fingerprint(*templates: Raw) -> str:
    """Returns a short name of a target's pod templates, the same for all versions of the weights."""
    content = json.dumps([_without_weights(template) for template in templates], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _without_weights(template: Raw) -> list[Any]:
    metadata = template.get("metadata") or {}
    told = {WEIGHTS_ANNOTATION, VERSION_ANNOTATION}
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key not in told}
    return [metadata.get("labels"), annotations, template["spec"]]
