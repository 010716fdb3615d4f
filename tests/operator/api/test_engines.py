"""Training on several nodes and in queues, with JobSet's and Kueue's own controllers and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import yaml

from skill_contract.outcome import Result
from tests.cluster.controlplane import ControlPlane
from tests.cluster.engines import Engine
from tests.operator import raw
from tests.operator.api.conftest import Operator, prepare, running_operator
from tests.operator.api.place import PATIENCE_S, Kubelet, Place, condition
from tests.operator.raw import Step

pytestmark = [pytest.mark.api, pytest.mark.engines, pytest.mark.usefixtures("operator")]

TRAIN = "sdft.dev/step=train"
QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
GANG = {"training": {"nodes": 2, "gpusPerNode": 4}}
PREEMPTED = raw.ended(75, raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted").dump_json())


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane as the other tests have, with both engines."""
    with ControlPlane() as plane, ExitStack() as stack:
        engines = [Engine(program, plane.kubeconfig, plane.folder) for program in ("jobset", "kueue")]
        for engine in engines:
            engine.install()
            stack.callback(engine.stop)
        prepare(plane)
        plane.start_controllers()
        for engine in engines:
            engine.start()
        yield plane


@pytest.fixture(scope="module")
def operator_process(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    yield from running_operator(plane, tmp_path_factory)


@pytest.fixture
def waiting(kubelet: Kubelet) -> Kubelet:
    """A kubelet that leaves trainers' pods as they come: a test ends them, each by itself."""
    kubelet.steps["train"] = []
    return kubelet


async def trainers(place: Place, count: int, restart: int = 0) -> list[raw.Raw]:
    """The trainers' pods of a start of a JobSet, by their number, as soon as all of them are there."""
    selector = f"{TRAIN},jobset.sigs.k8s.io/restart-attempt={restart}"
    found: dict[str, raw.Raw] = {}
    async with asyncio.timeout(PATIENCE_S), place.watch("pods", labelSelector=selector) as changes:
        async for event, pod in changes:
            if event == "ADDED":
                found[pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]] = pod
            if len(found) == count:
                return [found[str(index)] for index in range(count)]
    raise AssertionError("unreachable: a watch does not end")


async def end(kubelet: Kubelet, pods: list[raw.Raw], status: raw.Raw) -> None:
    for pod in pods:
        await kubelet.write(pod["metadata"]["name"], status)


# -- JobSet ---------------------------------------------------------------------------------------------------------


async def test_two_nodes_train_together_and_the_version_is_promoted(place: Place, waiting: Kubelet):
    await place.update("both", serving=False, **GANG)
    pods = await trainers(place, 2)
    jobset = await place.until_some("jobsets", "sdft.dev/update=both")
    name = jobset["metadata"]["name"]
    for index, pod in enumerate(pods):
        assert pod["spec"]["hostname"] == f"{name}-node-0-{index}"
        assert pod["spec"]["subdomain"] == name
        (container,) = pod["spec"]["containers"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert variables["MASTER_ADDR"] == f"{name}-node-0-0.{name}"
        assert "JOB_COMPLETION_INDEX" in variables
    await end(waiting, pods, waiting.said("train"))
    update = await place.phase("both", "Succeeded")
    training = update["status"]["training"]
    assert (training["attempt"], training["restarts"], training["preemptions"]) == (1, 0, 0)
    assert await place.step_jobs("both") == ["check", "promote", "train"]


async def test_all_start_again_when_one_fails_and_that_is_one_restart(place: Place, waiting: Kubelet):
    await place.update("unlucky", serving=False, **GANG)
    first = await trainers(place, 2)
    await end(waiting, first[:1], raw.running())
    await end(waiting, first[1:], raw.ended(1, "Segmentation fault"))
    second = await trainers(place, 2, restart=1)
    await end(waiting, second, waiting.said("train"))
    update = await place.phase("unlucky", "Succeeded")
    training = update["status"]["training"]
    assert (training["attempt"], training["restarts"], training["preemptions"]) == (2, 1, 0)


async def test_preempted_pod_costs_all_of_them_a_start_but_no_restart(place: Place, waiting: Kubelet):
    await place.update("drained", serving=False, training={**GANG["training"], "failurePolicy": {"maxRestarts": 0}})
    await end(waiting, await trainers(place, 2), PREEMPTED)
    await end(waiting, await trainers(place, 2, restart=1), waiting.said("train"))
    update = await place.phase("drained", "Succeeded")
    training = update["status"]["training"]
    assert (training["attempt"], training["restarts"], training["preemptions"]) == (2, 0, 1)
    assert "Preempted" in await place.reasons("drained")


async def test_mistake_fails_at_once_on_several_nodes(place: Place, waiting: Kubelet):
    answer = raw.outcome(Step.TRAIN, Result.FAILED, "DataInvalid", "train.jsonl, line 2: no prompt")
    await place.update("mistaken", serving=False, **GANG)
    await end(waiting, (await trainers(place, 2))[1:], raw.said(answer, 42))
    update = await place.phase("mistaken", "Failed")
    assert condition(update, "Ready")["reason"] == "DataInvalid"
    assert update["status"]["training"]["restarts"] == 0
    (jobset,) = await place.list("jobsets")
    assert not jobset["status"].get("restarts")


async def test_suspended_update_gives_all_its_nodes_back(place: Place, waiting: Kubelet):
    await place.update("resting", serving=False, **GANG)
    await trainers(place, 2)
    (jobset,) = await place.list("jobsets")
    await place.patch("skillupdates", "resting", {"spec": {"suspend": True}})
    await place.phase("resting", "Suspended")
    await place.until_gone("jobsets", jobset)
    assert await place.list("pods", TRAIN) == []
    await place.patch("skillupdates", "resting", {"spec": {"suspend": False}})
    await end(waiting, await trainers(place, 2), waiting.said("train"))
    await place.phase("resting", "Succeeded")


# -- Kueue ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(plane: ControlPlane, place: Place) -> str:
    """A queue of the namespace's own with quota for eight GPUs, where the higher priority goes first."""
    name = place.namespace
    kueue = "kueue.x-k8s.io/v1beta2"
    gpus = {"name": "nvidia.com/gpu", "nominalQuota": 8}
    covered = {"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "any", "resources": [gpus]}]}
    documents = [
        {"apiVersion": kueue, "kind": "ResourceFlavor", "metadata": {"name": "any"}, "spec": {}},
        *({"apiVersion": kueue, "kind": "WorkloadPriorityClass", "metadata": {"name": each}, "value": value}
          for each, value in {"low": 1, "high": 1000}.items()),
        {"apiVersion": kueue, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": {
            "namespaceSelector": {}, "resourceGroups": [covered],
            "preemption": {"withinClusterQueue": "LowerPriority"}}},
        {"apiVersion": kueue, "kind": "LocalQueue", "metadata": {"name": "gpus", "namespace": name},
         "spec": {"clusterQueue": name}},
    ]  # fmt: skip
    plane.kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(documents))
    return "gpus"


async def in_queue(place: Place, name: str, queue: str, *, priority: str = "low", **spec: object) -> raw.Raw:
    """Creates an update, of a model of its own, whose training goes through a queue."""
    labels = {QUEUE: queue, PRIORITY: priority}
    model = {"uri": f"s3://{place.namespace}/{name}"}
    return await place.update(name, serving=False, model=model, metadata={"labels": labels}, **spec)


def waits(words: str):
    """Whether an update says that it waits in the queue, and these words of Kueue's."""

    def reached(update: raw.Raw) -> bool:
        ready = condition(update, "Ready") if "status" in update else {}
        return ready.get("reason") == "WaitingForAdmission" and words in ready["message"]

    return reached


async def test_update_waits_for_quota_with_kueue_s_reason_and_goes_on(place: Place, waiting: Kubelet, queue: str):
    await in_queue(place, "first", queue)
    pod = await place.until_some("pods", f"{TRAIN},sdft.dev/update=first")
    await in_queue(place, "second", queue, **GANG)
    update = await place.until("skillupdates", "second", waits("insufficient unused quota for nvidia.com/gpu"))
    assert update["status"]["phase"] == "Queued"
    assert condition(update, "Ready")["message"].startswith("queue gpus: ")
    assert await place.list("pods", f"{TRAIN},sdft.dev/update=second") == []
    await end(waiting, [pod], waiting.said("train"))
    await place.phase("first", "Succeeded")
    await end(waiting, await trainers(place, 2), waiting.said("train"))
    update = await place.phase("second", "Succeeded")
    assert update["status"]["training"]["preemptions"] == 0


@pytest.mark.parametrize("spec", [{}, GANG], ids=["Job", "JobSet"])
async def test_higher_priority_preempts_and_the_lower_one_resumes(place: Place, waiting: Kubelet, queue: str, spec):
    await in_queue(place, "lower", queue, **spec)
    before = await place.until_some("pods", f"{TRAIN},sdft.dev/update=lower")
    await in_queue(place, "urgent", queue, priority="high")
    urgent = await place.until_some("pods", f"{TRAIN},sdft.dev/update=urgent")
    update = await place.until("skillupdates", "lower", waits("evicted (Preempted)"))
    assert (update["status"]["training"]["preemptions"], update["status"]["training"]["restarts"]) == (1, 0)
    await place.until_gone("pods", before)
    await end(waiting, [urgent], waiting.said("train"))
    await place.phase("urgent", "Succeeded")
    for index in range(2 if spec else 1):
        number = f"batch.kubernetes.io/job-completion-index={index}"
        pod = await place.until_some("pods", f"{TRAIN},sdft.dev/update=lower,{number}")
        await end(waiting, [pod], waiting.said("train"))
    update = await place.phase("lower", "Succeeded")
    training = update["status"]["training"]
    assert (training["restarts"], training["preemptions"]) == (0, 1)


async def test_queue_that_is_not_there_is_named(place: Place, waiting: Kubelet, queue: str):
    await in_queue(place, "astray", "nowhere")
    update = await place.until("skillupdates", "astray", waits("nowhere"))
    assert "doesn't exist" in condition(update, "Ready")["message"]
