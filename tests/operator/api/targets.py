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
    where = Where("apps/v1", "StatefulSet", "statefulsets", NAME, (_TEMPLATE,))
    spec = raw.deployment()["spec"] | {"serviceName": NAME}
    return Served(where, _document(where, spec), _is_stateful_set_up, "app=support-llm")


def leader_worker_set() -> Served:
    """Two groups of a leader and a worker."""
    names = ("leaderTemplate", "workerTemplate")
    paths = tuple(("spec", "leaderWorkerTemplate", name, "metadata", "annotations") for name in names)
    where = Where("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets", NAME, paths)
    template = raw.deployment()["spec"]["template"]
    spec = {"replicas": 2, "leaderWorkerTemplate": {"size": 2} | dict.fromkeys(names, template)}
    return Served(where, _document(where, spec), _is_leader_worker_set_up, "app=support-llm", count=4)


def rollout(*steps: Raw) -> Served:
    """A canary with these steps."""
    where = Where("argoproj.io/v1alpha1", "Rollout", "rollouts", NAME, (_TEMPLATE,))
    spec = raw.deployment()["spec"] | {"strategy": {"canary": {"steps": list(steps)}}}
    return Served(where, _document(where, spec), _is_rollout_up, "app=support-llm")


def inference_service() -> Served:
    """A predictor of the user's own containers, two of it."""
    path = ("spec", "predictor", "annotations")
    where = Where("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices", NAME, (path,))
    pods = raw.deployment()["spec"]["template"]["spec"]
    spec = {"predictor": {"minReplicas": 2} | pods}
    return Served(where, _document(where, spec), _is_inference_service_up, f"app=isvc.{NAME}-predictor")


def _document(where: Where, spec: Raw) -> Raw:
    return {"apiVersion": where.api_version, "kind": where.kind, "metadata": {"name": NAME}, "spec": spec}


def _is_leader_worker_set_up(seen: Raw) -> bool:
    status = seen.get("status", {})
    is_available = any(c["type"] == "Available" and c["status"] == "True" for c in status.get("conditions", []))
    return is_available and status.get("updatedReplicas") == status.get("readyReplicas") == status["replicas"] == 2


def _is_rollout_up(seen: Raw) -> bool:
    status = seen.get("status", {})
    return status.get("observedGeneration") == str(seen["metadata"]["generation"]) and status.get("phase") == "Healthy"


def _is_inference_service_up(seen: Raw) -> bool:
    conditions = seen.get("status", {}).get("conditions", [])
    return any(c["type"] == "PredictorReady" and c["status"] == "True" for c in conditions)
