"""KServe's part, played by its source: the Deployment of an InferenceService, and what it says of it.

Source: KServe 0.17, raw deployment reconciler (`createRawDefaultDeployment`, `PropagateRawStatus`): a Deployment
`<name>-predictor` whose pod template has the predictor's annotations, ready when that is available. Its own controller
(tests/e2e/target_stories.py) is not built for these tests: with Knative, Istio and KEDA in it that takes longer than
the tests of all other kinds together.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.operator.api.place import Place, Raw


class KServe:
    """Plays the controller in one namespace, for ever."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._carry_over())
            tasks.create_task(self._tell())

    async def _carry_over(self) -> None:
        async with self._place.watch("inferenceservices") as events:
            async for event, service in events:
                if event != "DELETED":
                    deployment = _deployment(service)
                    await self._place.apply("deployments", deployment["metadata"]["name"], deployment, "kserve")

    async def _tell(self) -> None:
        async with self._place.watch("deployments") as events:
            async for event, deployment in events:
                name, _, kind = deployment["metadata"]["name"].rpartition("-")
                if event != "DELETED" and kind == "predictor":
                    said = {"deploymentMode": "Standard", "conditions": [_predictor_ready(deployment)]}
                    await self._place.patch("inferenceservices", name, {"status": said}, "status")


def _predictor_ready(deployment: Raw) -> Raw:
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    available = next((c["status"] for c in conditions if c["type"] == "Available"), "False")
    return {"type": "PredictorReady", "status": available}


def _deployment(service: Raw) -> Raw:
    predictor, name = service["spec"]["predictor"], f"{service['metadata']['name']}-predictor"
    labels = {"app": f"isvc.{name}"}
    metadata: dict[str, Any] = {"labels": labels, "annotations": predictor.get("annotations") or {}}
    pods = {key: predictor[key] for key in ("initContainers", "containers")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": predictor["minReplicas"],
            "selector": {"matchLabels": labels},
            "template": {"metadata": metadata, "spec": pods},
        },
    }
