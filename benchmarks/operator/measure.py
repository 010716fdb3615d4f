"""One size, measured: what a start takes, what rest costs, how fast a child's end is in the status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from tests.api.crd import install
from tests.cluster.console import say
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.conftest import _rights

from benchmarks.operator import plane as planes
from benchmarks.operator.plane import Window, requests
from benchmarks.operator.population import NAMESPACE, Api, Raw, connect, settle, train
from benchmarks.operator.stages import TRAINER_ADDRESS
from benchmarks.operator.subject import Subject
from skill_contract.progress import Progress, Stage
from skill_contract.step import PROGRESS_PORT

WINDOW_SECONDS = 60.0
ENDS = 100
"""Trainers whose end is timed."""
ENDS_PER_SECOND = 2.0
MIB = 2**20


@dataclass(frozen=True)
class Rest:
    """A minute, with nothing or nothing but progress to do."""

    requests: dict[str, int]
    """By verb, as the API server counts them; a watch counts when it is opened."""
    own_requests: int
    """As the operator counts them: all but its watches and their lists."""
    cpu_s: float


@dataclass(frozen=True)
class Result:
    """What one size gave."""

    objects: int
    active: int
    empty_mib: float
    """RSS of an operator without any object."""
    steady_mib: float
    peak_mib: float
    cold_start_s: float
    idle: Rest
    """Trainers run and say nothing."""
    reporting: Rest
    """Every trainer has made a step whenever it is asked."""
    event_to_status_s: tuple[float, ...]
    """From a Job's end to the update that tells of it, both as a watch brings them; sorted."""

    def percentile(self, share: float) -> float:
        return self.event_to_status_s[min(len(self.event_to_status_s) - 1, int(share * len(self.event_to_status_s)))]

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, data: dict[str, Any]) -> Result:
        rests = {name: Rest(**data[name]) for name in ("idle", "reporting")}
        return cls(**(data | rests | {"event_to_status_s": tuple(data["event_to_status_s"])}))


async def measure(folder: Path, objects: int, active: int) -> Result:
    """Returns the figures of a cluster with so many updates, of which so many train."""
    with planes.running(folder) as plane:
        install(plane.kubectl)
        plane.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(_rights()))
        plane.kubectl("create", "namespace", NAMESPACE)
        empty = await _empty(plane)
        async with connect(plane) as api:
            await _populate(plane, api, objects, active)
            return await _measure(plane, api, objects, active, empty)


async def _empty(plane: ControlPlane) -> float:
    subject = Subject.start(plane)
    await subject.until_reconciled(0, 0, 60)
    await asyncio.sleep(5)
    empty = subject.resident() / MIB
    subject.stop()
    return empty


async def _populate(plane: ControlPlane, api: Api, objects: int, active: int) -> None:
    say(f"{objects - active} updates that have ended …")
    started = time.monotonic()
    await settle(api, objects - active)
    say(f"… took {time.monotonic() - started:.0f} s. {active} that train …")
    planes.play(plane)
    await train(api, active)
    started = time.monotonic()
    subject = Subject.start(plane)
    await subject.until_training(active, 120 + 5 * active)
    await asyncio.sleep(15)  # the last words of this start are written
    say(f"… took {time.monotonic() - started:.0f} s")
    subject.stop()


async def _measure(plane: ControlPlane, api: Api, objects: int, active: int, empty: float) -> Result:
    subject = Subject.start(plane)
    cold = await subject.until_reconciled(objects, active, 600)
    say(f"{objects} updates, {active} active: reconciled after {cold:.1f} s")
    await asyncio.sleep(20)
    steady = subject.resident() / MIB
    idle = await _rest(plane, subject)
    async with _trainers_that_report():
        await asyncio.sleep(15)  # until each has been asked once
        reporting = await _rest(plane, subject)
    times = await _ends(api, min(active, ENDS))
    peak = subject.resident(peak=True) / MIB
    subject.stop()
    return Result(objects, active, empty, steady, peak, cold, idle, reporting, tuple(sorted(times)))


async def _rest(plane: ControlPlane, subject: Subject) -> Rest:
    begin, cpu, own = time.time(), subject.cpu_seconds(), _own_requests(await subject.series())
    await asyncio.sleep(WINDOW_SECONDS)
    window, own = Window(begin, time.time()), _own_requests(await subject.series()) - own
    return Rest(dict(requests(plane, window)), own, subject.cpu_seconds() - cpu)


def _own_requests(series: dict[str, float]) -> int:
    return round(sum(n for name, n in series.items() if name.startswith("skill_operator_api_requests_total")))


@asynccontextmanager
async def _trainers_that_report() -> AsyncIterator[None]:
    """Every trainer pod has the same address: one server answers for all."""
    began = time.time()

    async def progress(_: web.Request) -> web.Response:
        step = int(time.time() - began)
        now = Progress(stage=Stage.TRAINING, step=step, total=100_000, loss=0.5, heartbeat=time.time())
        return web.Response(text=now.dump_json(), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/progress", progress)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, TRAINER_ADDRESS, PROGRESS_PORT).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _ends(api: Api, count: int) -> list[float]:
    """Returns how long after its Job's end an update tells of it, for trainers that end one after the other."""
    jobs, updates = await api.now("jobs"), await api.now("skillupdates")
    async with asyncio.timeout(120 + count / ENDS_PER_SECOND):
        ended, told, _ = await asyncio.gather(
            _times(api.watch("jobs", jobs), _of_ended_trainer, count),
            _times(api.watch("skillupdates", updates), _of_trained, count),
            _end_trainers(api, count),
        )
    return [told[name] - at for name, at in ended.items()]


async def _end_trainers(api: Api, count: int) -> None:
    last_word = raw.said(raw.outcome(raw.Step.TRAIN))
    for pod in (await api.list("pods", "sdft.dev/step=train", "Running"))[:count]:
        await api.patch("pods", pod["metadata"]["name"], {"status": last_word}, "status")
        await asyncio.sleep(1 / ENDS_PER_SECOND)


async def _times(watch: AsyncIterator[Raw], name_of: Callable[[Raw], str], count: int) -> dict[str, float]:
    """Returns when each of the first `count` updates was seen, monotonic seconds."""
    times: dict[str, float] = {}
    async for seen in watch:
        name = name_of(seen)
        if name:
            times.setdefault(name, time.monotonic())
        if len(times) == count:
            break
    return times


def _of_ended_trainer(job: Raw) -> str:
    labels = job["metadata"].get("labels") or {}
    return labels["sdft.dev/update"] if labels.get("sdft.dev/step") == "train" and _has(job, "Complete") else ""


def _of_trained(update: Raw) -> str:
    return update["metadata"]["name"] if _has(update, "Trained") else ""


def _has(seen: Raw, condition: str) -> bool:
    return any(c["type"] == condition for c in (seen.get("status") or {}).get("conditions") or ())
