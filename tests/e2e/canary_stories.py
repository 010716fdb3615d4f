"""A canary that a real Prometheus judges, by what it scrapes from real pods: one that answers slowly, and a good one.

`make targets` runs it beside the stories of other kinds; the outcome is in docs/serving.md.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import Cluster, ClusterError, debian, network
from tests.cluster.console import say
from tests.cluster.processes import Processes
from tests.e2e import story
from tests.e2e.asking import asking
from tests.e2e.computing import compute, config_map, mount, sources
from tests.e2e.world import DEMO, World, condition
from tests.smollm2 import shallow

pytestmark = [pytest.mark.e2e, pytest.mark.alerts, pytest.mark.timeout(1800)]
Raw = dict[str, Any]
NAME = "watched"
REPOSITORY = f"s3://models/{NAME}"
PROMETHEUS = f"{network.NODE}:9090"
_OF = '{namespace="$namespace", pod=~"$pods"}[30s]'
ANALYSIS = {
    "samples": f"sum(increase(http_requests_total{_OF}))",
    "minSamples": 5,
    "metrics": [
        {
            "name": "answer-seconds",
            "query": f"sum(rate(request_seconds_sum{_OF})) / sum(rate(request_seconds_count{_OF}))",
            "maxRatio": "4",
        }
    ],
    "canarySeconds": 60,
    "warmupSeconds": 35,  # the golden prompts are out of the queries' range by then
    "intervalSeconds": 10,
}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One in the cluster's network that scrapes each second what stands in a file; yields that file.

    Debian's knows no Kubernetes (`kubernetes_sd_configs` is not built in).
    """
    folder = tmp_path_factory.mktemp("prometheus")
    found = folder / "found.json"
    scraped = {"job_name": "pods", "file_sd_configs": [{"files": [str(found)]}]}
    settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scraped]}
    (folder / "prometheus.yaml").write_text(json.dumps(settings))  # JSON is YAML
    processes = Processes(folder, outlive=False)
    command = [
        *network.ENTER,
        debian.program("prometheus", package="prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={PROMETHEUS}",
    ]
    processes.start("prometheus", command)
    processes.wait("prometheus", _is_ready, "the start of Prometheus", 60)
    yield found
    processes.stop("prometheus", seconds=5)


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> World:
    """Operator that may ask Prometheus, an object store; nothing is served yet."""
    world = World(cluster, "canary")
    world.create_namespace()
    world.install_operator(f"prometheus.url=http://{PROMETHEUS}")
    world.start_storage()
    story.upload_smoke(world)
    return world


@pytest.fixture
def _pods_are_found(world: World, prometheus: Path) -> Iterator[None]:
    """The part of Prometheus that finds pods, every two seconds."""
    ended = threading.Event()

    def find() -> None:
        while not ended.wait(2):
            with contextlib.suppress(ClusterError):  # a busy machine loses connections
                new = prometheus.with_suffix(".new")
                new.write_text(json.dumps(_targets(world)))
                new.replace(prometheus)

    thread = threading.Thread(target=find)
    thread.start()
    yield
    ended.set()
    thread.join()


def _targets(world: World) -> list[Raw]:
    return [
        {
            "targets": [f"{pod['status']['podIP']}:8000"],
            "labels": {"namespace": world.namespace, "pod": pod["metadata"]["name"]},
        }
        for pod in world.serving_pods(NAME)
        if "podIP" in pod["status"]
    ]


@pytest.mark.usefixtures("_pods_are_found")
def test_canary_that_answers_slowly_goes_back_and_a_good_one_is_followed(world: World, tmp_path: Path):
    _serve(world, tmp_path / "base")
    world.apply(_update("slow", approval="Manual"))
    version = story.wait_for_result(world, "slow")["status"]["published"]["version"]
    world.apply(config_map("slow", {"version": version}))
    with asking(world, NAME, NAME) as asked:
        story.approve(world, "slow")
        status = story.settle(world, "slow")["status"]
        assert status["phase"] == "RolledBack", status
        assert condition({"status": status}, "Stalled")["reason"] == "AnalysisFailed"
        assert status["rollout"]["hold"]["proved"], "its answers were right, and only one pod ever gave them"
        say(f"{condition({'status': status}, 'Stalled')['message']}")
        say(f"{_seconds_alone(status):.0f} s after its proof; {status['rollout']['analysis']}")

        world.apply(_update("good", approval="Automatic"))
        status = story.settle(world, "good")["status"]
        assert status["phase"] == "Succeeded", status
        assert status["rollout"]["analysis"]["result"] == "Passed"
        assert status["rollout"]["hold"]["proved"]
        say(f"{status['rollout']['analysis']}")
        assert asked.errors() == []


def _seconds_alone(status: Raw) -> float:
    """Returns for how long a canary served before it was found out, in seconds."""
    proved, fault = (status["rollout"][part][name] for part, name in (("hold", "provedAt"), ("rollback", "faultAt")))
    return (datetime.fromisoformat(fault) - datetime.fromisoformat(proved)).total_seconds()


def _is_ready() -> bool:
    try:
        return httpx.get(f"http://{PROMETHEUS}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _serve(world: World, folder: Path) -> None:
    """Two pods of an engine that tells Prometheus how long it answers; ready when this ends."""
    with world.storage():
        world.repository(REPOSITORY).import_base(str(shallow(folder)))
    service, deployment = world.example(DEMO / "serving.yaml")
    labels = {"app": NAME}
    service["metadata"]["name"] = deployment["metadata"]["name"] = NAME
    service["spec"]["selector"] = labels
    deployment["spec"]["selector"]["matchLabels"] = deployment["spec"]["template"]["metadata"]["labels"] = labels
    pod = deployment["spec"]["template"]["spec"]
    fetch = pod["initContainers"][0]["env"]
    fetch[0]["value"] = REPOSITORY
    compute(world, pod, NAME, mount("slow"), env=[fetch[1], {"name": "HOST", "value": "0.0.0.0"}])
    pod["volumes"].append({"name": "slow", "configMap": {"name": "slow", "optional": True}})
    world.apply(sources(), service, deployment)
    world.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=300s")


def _update(name: str, *, approval: str) -> Raw:
    update = story.quick_update(name)
    spec = update["spec"]
    spec["model"] = {"uri": REPOSITORY}
    spec["gates"]["approval"] = approval
    spec["serving"] |= {"servedModelName": NAME, "analysis": ANALYSIS}
    spec["serving"]["targetRef"]["name"] = NAME
    return update
