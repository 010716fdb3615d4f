"""The faults: what happens to an update at a phase, what is put right again, and what end it has to have."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from skill_operator.api import FINALIZER, UPDATE_UID_LABEL, WEIGHTS_ANNOTATION
from tests.api.crd import CRD, install
from tests.chaos.life import NAME, TARGET, Cell, Ending
from tests.chaos.proxy import Harm, Trouble
from tests.chaos.world import World

Cells = Sequence[Cell]
Deed = Callable[[World, Cells, random.Random], Awaitable[None]]


async def nothing(world: World, cells: Cells, chance: random.Random) -> None:
    return


@dataclass(frozen=True, eq=False)
class Fault:
    name: str
    strike: Deed
    heal: Deed = nothing
    """What is put right after everything that the station held was let go."""
    stations: tuple[str, ...] = ()
    """Where it can happen; none named: everywhere."""
    shared: bool = False
    """It meets every update there is, so all its cells are struck at once, each at its own station."""
    endings: Mapping[str, Ending] = field(default_factory=dict)
    """By station, where the end is not that of the same life without the fault."""
    remakes: bool = False
    reruns: int = 1
    """See `invariants.violations`."""


# -- the operator, the API server, the way between --------------------------------------------------------------------


async def kill_operator(world: World, cells: Cells, chance: random.Random) -> None:
    await asyncio.to_thread(world.operators[0].kill)


async def stop_operator(world: World, cells: Cells, chance: random.Random) -> None:
    code = await asyncio.to_thread(world.operators[0].stop)
    assert code == 0, f"the operator ended with {code} on SIGTERM"


async def start_operator(world: World, cells: Cells, chance: random.Random) -> None:
    world.operators[0].start()


async def second_operator(world: World, cells: Cells, chance: random.Random) -> None:
    second = await world.operator()
    await second.ready()


async def restart_api_server(world: World, cells: Cells, chance: random.Random) -> None:
    await asyncio.to_thread(world.plane.processes.kill, "kube-apiserver")
    await asyncio.to_thread(world.plane.start_apiserver)


async def kill_controllers(world: World, cells: Cells, chance: random.Random) -> None:
    await asyncio.to_thread(world.plane.processes.kill, "kube-controller-manager")


async def start_controllers(world: World, cells: Cells, chance: random.Random) -> None:
    await asyncio.to_thread(world.plane.start_controllers)


async def expire_watches(world: World, cells: Cells, chance: random.Random) -> None:
    assert world.proxy.expire_watches(), "there was no watch"


async def cut_watches(world: World, cells: Cells, chance: random.Random) -> None:
    assert world.proxy.cut_watches(), "there was no watch"


async def silence_watches(world: World, cells: Cells, chance: random.Random) -> None:
    assert world.proxy.silence_watches(), "there was no watch"


def meets(harm: Harm, times: int = 5) -> Deed:
    """Some of the operator's next requests about the namespace meet harm."""

    async def strike(world: World, cells: Cells, chance: random.Random) -> None:
        for cell in cells:
            world.proxy.troubles[cell.namespace] = Trouble(harm, times, chance)

    return strike


async def change_crd(world: World, cells: Cells, chance: random.Random) -> None:
    """An additive change: the API server makes its endpoints anew and ends all watches of the kind."""
    version = CRD["spec"]["versions"][0]["name"]
    path = "/spec/versions/0/schema/openAPIV3Schema/description"
    patch = f'[{{"op": "replace", "path": "{path}", "value": "{version}, as changed by chaos"}}]'
    await asyncio.to_thread(
        world.plane.kubectl, "patch", "crd", CRD["metadata"]["name"], "--type=json", f"--patch={patch}"
    )


async def restore_crd(world: World, cells: Cells, chance: random.Random) -> None:
    await asyncio.to_thread(install, world.plane.kubectl)


# -- the children -----------------------------------------------------------------------------------------------------


def _step_pod(cell: Cell) -> dict:
    pod = cell.step_pod()
    assert pod is not None, "no pod of a step runs"
    return pod


async def _another_pod(cell: Cell, gone: dict) -> None:
    """Waits until another pod runs in the place of one that is gone."""

    def is_there() -> bool:
        now = cell.step_pod()
        return now is not None and now["metadata"]["uid"] != gone["metadata"]["uid"]

    await cell.until(is_there, "another pod of the step")


async def delete_pod(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        pod = _step_pod(cell)
        await cell.place.delete("pods", pod["metadata"]["name"])
        await _another_pod(cell, pod)


async def lose_node(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        pod = _step_pod(cell)
        await world.kubelets.lose_node(cell.script, pod)
        await _another_pod(cell, pod)


async def delete_finished_pod(world: World, cells: Cells, chance: random.Random) -> None:
    """The pod is gone as soon as it has ended: nobody could read what it said."""
    for cell in cells:
        pod = _step_pod(cell)
        await world.kubelets.release(cell.script)
        await cell.place.delete("pods", pod["metadata"]["name"])


async def delete_job(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        for job in cell.jobs():
            await cell.place.delete("jobs", job["metadata"]["name"])


async def disown_jobs(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        for job in cell.jobs():
            await cell.place.patch("jobs", job["metadata"]["name"], {"metadata": {"ownerReferences": None}})


async def unlabel_jobs(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        for job in cell.jobs():
            labels = {UPDATE_UID_LABEL: None}
            await cell.place.patch("jobs", job["metadata"]["name"], {"metadata": {"labels": labels}})


async def unlabel_pods(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        pod, labels = _step_pod(cell), {UPDATE_UID_LABEL: None}
        await cell.place.patch("pods", pod["metadata"]["name"], {"metadata": {"labels": labels}})


# -- the update itself ------------------------------------------------------------------------------------------------


async def erase_status(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        patch = dict.fromkeys(cell.status)
        await cell.place.patch("skillupdates", NAME, {"status": patch}, "status")


async def lie_in_status(world: World, cells: Cells, chance: random.Random) -> None:
    """A phase that is not true, and a word that nobody said; the facts of the past stay."""
    phase = chance.choice(["Pending", "Training", "Succeeded", "Failed", "RolledBack", "Queued"])
    for cell in cells:
        conditions = [
            condition | {"status": "True", "reason": "Lie", "message": "all is well"}
            if condition["type"] in {"Ready", "Stalled", "Queued", "Reconciling"}
            else condition
            for condition in cell.status["conditions"]
        ]
        patch = {"phase": phase, "progress": "99%", "conditions": conditions}
        await cell.place.patch("skillupdates", NAME, {"status": patch}, "status")


async def take_finalizer(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        assert cell.update is not None
        assert FINALIZER in cell.update["metadata"].get("finalizers", ()), "there was no finalizer"
        await cell.place.patch("skillupdates", NAME, {"metadata": {"finalizers": None}})


async def delete_update(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        await cell.place.delete("skillupdates", NAME)


async def delete_namespace(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        await world.leave(cell)


async def suspend(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        await cell.place.patch("skillupdates", NAME, {"spec": {"suspend": True}})
        await cell.until(lambda cell=cell: cell.phase, "the suspended update to be seen")


async def resume(world: World, cells: Cells, chance: random.Random) -> None:
    for cell in cells:
        await cell.place.patch("skillupdates", NAME, {"spec": {"suspend": False}})


# -- the Deployment ---------------------------------------------------------------------------------------------------


def _template(cell: Cell, annotations: Mapping[str, str]) -> Awaitable[dict]:
    patch = {"spec": {"template": {"metadata": {"annotations": dict(annotations)}}}}
    return cell.place.patch("deployments", TARGET, patch)


async def _tell(cell: Cell, weights: str) -> None:
    """Somebody tells the Deployment a version; a promote step that asks has to be taken away before it is let go on."""
    await _template(cell, {WEIGHTS_ANNOTATION: weights})
    if cell.station.name == "promote":
        await cell.until(lambda: cell.held_pod("promote") is None, "the promote step to be taken away")


async def restart_deployment(world: World, cells: Cells, chance: random.Random) -> None:
    """`kubectl rollout restart`: all pods anew, with the same weights."""
    for cell in cells:
        await _template(cell, {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"})


async def overrule(world: World, cells: Cells, chance: random.Random) -> None:
    """Somebody tells the Deployment another version."""
    for cell in cells:
        await _tell(cell, f"s3://{cell.namespace}/llm/versions/000007-cccccccccccc")


async def undo(world: World, cells: Cells, chance: random.Random) -> None:
    """`kubectl rollout undo`: somebody tells it the version before."""
    for cell in cells:
        await _tell(cell, cell.script.previous)


# -- all of them ------------------------------------------------------------------------------------------------------

_BEFORE = ("Queued", "Checking", "Training", "Training, checkpoint", "Evaluating", "AwaitingApproval")
_ROLLING = ("RollingOut", "Soaking", "promote", "RollingBack")
_WITH_POD = ("Checking", "Training", "Training, checkpoint", "Evaluating", "promote", "Reverting")
_WITH_JOBS = tuple(name for name in (*_BEFORE, *_ROLLING, "Reverting") if name != "Queued")
_BUSY = (*_BEFORE, *_ROLLING, "Reverting")
"""Where the operator has still something to ask of the API server."""

_GONE_BEFORE = Ending("gone", "previous", "previous")
_DELETED = {
    **dict.fromkeys((*_BEFORE, "RollingOut", "Soaking", "RollingBack"), _GONE_BEFORE),
    "promote": Ending("gone", "candidate", "candidate"),
    "Reverting": Ending("gone", "previous", "previous"),
    "final": Ending("gone", "candidate", "candidate"),
}
_STRANGER = {
    **dict.fromkeys(_BEFORE, Ending("Failed", "stranger", "previous", "GitOpsConflict")),
    **dict.fromkeys(("RollingOut", "Soaking", "promote"), Ending("Failed", "stranger", "previous", "Superseded")),
    "RollingBack": Ending("RolledBack", "stranger", "previous"),
    "Reverting": Ending("Reverted", "stranger", "previous"),
    "final": Ending("Succeeded", "stranger", "candidate"),
}
_UNDONE = dict.fromkeys(
    ("RollingOut", "Soaking", "promote"), Ending("RolledBack", "previous", "previous", "ManualRollback")
)
_EVERYTHING_GONE = Ending("gone", "gone", "")

FAULTS = (
    Fault("none", nothing),
    Fault("operator killed (SIGKILL)", kill_operator, start_operator, shared=True),
    Fault("operator stopped (SIGTERM)", stop_operator, start_operator, shared=True),
    Fault("two operators at once", second_operator, shared=True),
    Fault("API server killed and restarted", restart_api_server, shared=True),
    Fault("controller manager killed", kill_controllers, start_controllers, shared=True),
    Fault("CRD changed and changed back", change_crd, restore_crd, shared=True),
    Fault("every watch ends with 410 Gone", expire_watches, shared=True),
    Fault("every watch is cut", cut_watches, shared=True),
    Fault("every watch falls silent, its connection open", silence_watches, shared=True),
    Fault("replies lost, requests carried out", meets(Harm.LOST_REPLY), stations=_BUSY),
    Fault("requests lost", meets(Harm.LOST_REQUEST), stations=_BUSY),
    Fault("409 Conflict", meets(Harm.CONFLICT), stations=_BUSY),
    Fault("429 with Retry-After", meets(Harm.BUSY), stations=_BUSY),
    Fault("500", meets(Harm.BROKEN), stations=_BUSY),
    Fault("slow API (2 s an answer)", meets(Harm.SLOW, 8), stations=_BUSY),
    Fault("step's pod deleted", delete_pod, stations=_WITH_POD, reruns=2),
    Fault("step's node lost", lose_node, stations=_WITH_POD, reruns=2),
    Fault("step's pod gone before it was read", delete_finished_pod, stations=_WITH_POD, reruns=2),
    Fault("step's Jobs deleted", delete_job, stations=_WITH_JOBS, remakes=True),
    Fault("ownerReference taken from the Jobs", disown_jobs, stations=_WITH_JOBS),
    Fault("labels taken from the Jobs", unlabel_jobs, stations=_WITH_JOBS),
    Fault("labels taken from the step's pod", unlabel_pods, stations=_WITH_POD, reruns=2),
    Fault("status erased by hand", erase_status),
    Fault("status edited by hand", lie_in_status),
    Fault("finalizer removed by hand", take_finalizer, stations=_ROLLING),
    Fault("Deployment restarted by somebody", restart_deployment),
    Fault("annotation changed by somebody", overrule, endings=_STRANGER),
    Fault("annotation taken back by somebody", undo, stations=tuple(_UNDONE), endings=_UNDONE),
    Fault("update deleted", delete_update, endings=_DELETED),
    Fault("namespace deleted", delete_namespace, endings=dict.fromkeys((*_BUSY, "final"), _EVERYTHING_GONE)),
    # A step that ends while it is taken away ends with its answer lost: its pod goes.
    Fault("suspended and resumed", suspend, resume, remakes=True, reruns=2),
)
