"""The first new pod of a real Deployment as a canary: a real Prometheus judges it, the operator's process asks.

What containers do is played, their metrics too: they are scraped from one port, by their pods' names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily

from tests.alerts.prometheus import Prometheus, free_port, prometheus
from tests.cluster.controlplane import ControlPlane
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place, at_rest, condition, serves_what_it_is_told, told
from tests.operator.raw import Raw

pytestmark = [pytest.mark.api, pytest.mark.alerts]

_OF = 'namespace="$namespace", pod=~"$pods"'
_ERRORS = f'sum(rate(http_requests_total{{{_OF}, status="500"}}[4s]))'
ANALYSIS = {
    "samples": f"sum(increase(http_requests_total{{{_OF}}}[4s]))",
    "minSamples": 5,
    "metrics": [
        {
            "name": "error-rate",
            "query": f"{_ERRORS} / sum(rate(http_requests_total{{{_OF}}}[4s]))",
            "maxIncrease": "0.1",
        }
    ],
    "canarySeconds": 4,
    "warmupSeconds": 4,
    "intervalSeconds": 10,
    "failureLimit": 1,
}


class Engines:
    """Serving pods, each with twenty requests a second, of which a share fails."""

    def __init__(self, place: Place, server: Prometheus) -> None:
        self.server, self._namespace = server, place.namespace
        self._serving: dict[str, tuple[float, float]] = {}
        self.on_candidate: set[str] = set()
        """Names of all pods that were ever told the candidate."""

    def serves(self, pod: Raw, failing: float = 0.01) -> Raw:
        """Requests come to a pod from now on; returns its status."""
        self._serving[pod["metadata"]["name"]] = (time.monotonic(), failing)
        return serves_what_it_is_told(pod)

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("http_requests", "Answers.", labels=["namespace", "pod", "status"])
        for pod, (since, failing) in tuple(self._serving.items()):
            requests = 20 * (time.monotonic() - since)
            family.add_metric([self._namespace, pod, "200"], requests * (1 - failing))
            family.add_metric([self._namespace, pod, "500"], requests * failing)
        yield family


@pytest.fixture
async def engines(
    plane: ControlPlane, place: Place, operator_process: Operator, tmp_path: Path
) -> AsyncIterator[Engines]:
    """The serving pods' metrics in a Prometheus, which an operator instead of the usual one asks."""
    port, registry = free_port(), CollectorRegistry()
    with prometheus(tmp_path, port) as server:
        asked = Engines(place, server)
        registry.register(asked)
        endpoint, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        if operator_process.is_alive:
            operator_process.kill()
        operator = Operator(plane, tmp_path / "operator.log", {"SKILL_PROMETHEUS_URL": server.url})
        operator.start()
        try:
            await operator.ready()
            yield asked
        finally:
            operator.kill()
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


async def held(place: Place, kubelet: Kubelet, engines: Engines, name: str) -> Raw:
    """Brings an update to its hold, with old pods that have been asked for a while; returns the first new pod."""

    def play(pod: Raw) -> Raw | None:
        if told(pod) != place.candidate:
            return engines.serves(pod)
        engines.on_candidate.add(pod["metadata"]["name"])
        return None

    kubelet.serving = play
    await place.serve()
    answered = f'sum(increase(http_requests_total{{namespace="{place.namespace}"}}[4s])) > 50'
    await asyncio.to_thread(engines.server.shown, answered)
    await place.update(name, serving={"analysis": ANALYSIS, "progressDeadlineSeconds": 120})
    await place.until("skillupdates", name, lambda update: _rollout(update).get("hold", {}).get("since"))
    (first,) = await place.on_candidate()
    return first


async def test_canary_that_fails_more_often_never_has_a_second(place: Place, kubelet: Kubelet, engines: Engines):
    first = await held(place, kubelet, engines, "worse")
    await kubelet.write(first["metadata"]["name"], engines.serves(first, failing=0.5))
    update = await place.phase("worse", "RolledBack")
    stalled = condition(update, "Stalled")
    assert (stalled["reason"], "error-rate" in stalled["message"]) == ("AnalysisFailed", True), stalled
    assert _rollout(update)["hold"]["proved"], "its answers were right"
    await place.until("deployments", "support-llm", at_rest)
    assert engines.on_candidate == {first["metadata"]["name"]}


async def test_canary_that_is_like_the_others_is_followed_by_them(place: Place, kubelet: Kubelet, engines: Engines):
    first = await held(place, kubelet, engines, "alike")
    kubelet.serving = engines.serves
    await kubelet.write(first["metadata"]["name"], engines.serves(first))
    update = await place.phase("alike", "Succeeded")
    assert _rollout(update)["analysis"]["result"] == "Passed"
    assert _rollout(update)["hold"]["proved"]
    assert update["status"]["rollout"]["podsVerified"] == "2/2"


def _rollout(update: Raw) -> Raw:
    rollout: Raw = (update.get("status") or {}).get("rollout") or {}
    return rollout
