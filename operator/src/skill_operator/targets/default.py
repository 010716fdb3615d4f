"""What pods take while they are told no version: the SKILL_DEFAULT of their fetch container.

Pure. Without one they wait for an annotation, by design, and a rollout has nothing to go back to. KServe's storage
initializer has always one: the storageUri.
"""

from __future__ import annotations

from collections.abc import Iterator

from skill_operator.api import WEIGHTS_FIELD_PATH
from skill_operator.targets.kind import Raw, Standing, at


def waiting_fetcher(standing: Standing) -> str:
    """Returns the name of a fetch container that has no default; empty where all have one, or may have.

    What a container of somebody else's does without an annotation is not known: ours reads it as SKILL_WEIGHTS.
    """
    fetchers = (container for container in _fetchers(standing) if _is_ours(container) and not _may_have(container))
    return next((str(container["name"]) for container in fetchers), "")


def _fetchers(standing: Standing) -> Iterator[Raw]:
    """Those beside the annotations: in the spec of a pod template, or in what KServe makes one of."""
    for path in standing.place.paths:
        for holder in (at(standing.annotated, (*path[:-2], "spec")), at(standing.annotated, path[:-1])):
            containers: list[Raw] = holder.get("initContainers") or []
            yield from (container for container in containers if container["name"] in standing.fetchers)


def _is_ours(container: Raw) -> bool:
    told = (variable for variable in container.get("env") or () if variable["name"] == "SKILL_WEIGHTS")
    return any(
        ((each.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") == WEIGHTS_FIELD_PATH for each in told
    )


def _may_have(container: Raw) -> bool:
    """What a Secret or a ConfigMap holds is not read: it is taken to be there."""
    variables = [variable for variable in container.get("env") or () if variable["name"] == "SKILL_DEFAULT"]
    given = any(variable.get("value") or variable.get("valueFrom") for variable in variables)
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return given or bool(container.get("envFrom")) or any(str(word).startswith("--default") for word in words)
