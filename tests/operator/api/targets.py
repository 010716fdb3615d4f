"""Serving targets of each kind as a user writes them: two replicas of a wired pod template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skill_operator.actions import Place as Where
from tests.operator import raw
from tests.operator.api.place import Raw

NAME = "support-llm"
_TEMPLATE = ("spec", "template", "metadata", "annotations")


@dataclass(frozen=True)
class Served:
    """A kind of target."""

    where: Where
    manifest: Raw
    is_up: Callable[[Raw], bool]
    """Whether all is of the newest template and ready."""
    pods: str
    """Selector of all its pods."""
    count: int = 2

    @property
    def collection(self) -> str:
        return self.where.plural

    @property
    def reference(self) -> Raw:
        return {"apiVersion": self.where.api_version, "kind": self.where.kind, "name": NAME}


def _is_stateful_set_up(seen: Raw) -> bool:
    status = seen.get("status", {})
    if status.get("observedGeneration") != seen["metadata"]["generation"]:
        return False
    return status["currentRevision"] == status["updateRevision"] and status.get("readyReplicas") == 2


def stateful_set() -> Served:
    document = raw.deployment()
    del document["status"], document["metadata"]["generation"]
    document |= {"kind": "StatefulSet", "spec": document["spec"] | {"serviceName": NAME}}
    where = Where("apps/v1", "StatefulSet", "statefulsets", NAME, (_TEMPLATE,))
    return Served(where, document, _is_stateful_set_up, "app=support-llm")
