"""Who plays what is not there: the kubelets of all cells, with the steps' last words and the head of each repository.

The steps are played as they are: idempotent, the head moved by compare-and-swap, stopped by SIGTERM when their pod is
deleted. The real ones are killed in tests/trainer and tests/store.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from aiohttp import web

from skill_contract.outcome import ExitCode, Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import CONFIG_VARIABLE, PROGRESS_PORT, PromoteConfig, Step
from skill_operator.api import STEP_LABEL, UPDATE_LABEL, WEIGHTS_ANNOTATION
from tests.chaos.ledger import Entry, Ledger
from tests.operator import raw
from tests.operator.api.place import Place, Raw
from tests.operator.raw import CHILD, PARENT

SIGTERM_CODE = 143
PROVE, REVERT = "prove", "revert"
FIRST = "first"
"""Name of the update that is before another in the queue; its one step has this name here, too."""


@dataclass
class Script:
    """What the pods of one namespace do."""

    place: Place
    address: str
    """The loopback address of its training pod."""
    held: set[str] = field(default_factory=set)
    """What does not end, or get ready, by itself: steps, and `candidate` and `previous` pods."""
    rejects: bool = False
    """The promote step finds that the pods answer like other weights, as the first pod alone did not: all go back."""
    head: list[str] = field(default_factory=lambda: [PARENT[1]])
    """Digests of the head, the newest last."""
    progress: tuple[Stage, int, int] | None = None
    """Stage, step and last checkpoint of the training pod."""
    waiting: dict[str, Raw] = field(default_factory=dict)
    """Pods that are held, by uid."""
    known: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)

    @property
    def candidate(self) -> str:
        return f"s3://{self.place.namespace}/llm/versions/{CHILD[0]}@{CHILD[1]}"

    @property
    def previous(self) -> str:
        return f"s3://{self.place.namespace}/llm/versions/{PARENT[0]}@{PARENT[1]}"

    def role(self, pod: Raw) -> str:
        labels = pod["metadata"].get("labels") or {}
        if labels.get(UPDATE_LABEL) == FIRST:
            return FIRST
        if STEP_LABEL in labels:
            return str(labels[STEP_LABEL])
        return {self.candidate: "candidate", self.previous: "previous"}.get(told(pod), "other")


def told(pod: Raw) -> str:
    """Returns the version that a serving pod was told."""
    return str((pod["metadata"].get("annotations") or {}).get(WEIGHTS_ANNOTATION, ""))


def is_step(pod: Raw) -> bool:
    return STEP_LABEL in (pod["metadata"].get("labels") or {})


def promote_config(pod: Raw) -> PromoteConfig:
    """Returns what a promote step is asked."""
    (container,) = pod["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    return PromoteConfig.parse_json(values[CONFIG_VARIABLE])


class Kubelets:
    """Writes the statuses of the pods of all cells."""

    def __init__(self, ledger: Ledger) -> None:
        self.scripts: dict[str, Script] = {}
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._runners: list[web.AppRunner] = []
        ledger.listeners.append(self._hear)

    def _hear(self, entry: Entry) -> None:
        script = self.scripts.get(entry.seen["metadata"]["namespace"])
        if script is None or entry.kind != "pods":
            return
        if entry.event == "DELETED":
            script.waiting.pop(entry.seen["metadata"]["uid"], None)
            return
        task = asyncio.create_task(self._attend(script, entry.seen))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()

    async def _attend(self, script: Script, pod: Raw) -> None:
        uid, role = pod["metadata"]["uid"], script.role(pod)
        if pod["metadata"].get("deletionTimestamp"):
            if uid not in script.over and is_step(pod):
                await self._stop(script, pod, role)
        elif uid not in script.known:
            script.known.add(uid)
            if role not in script.held:
                await self._end(script, pod, role)
                return
            script.waiting[uid] = pod
            if is_step(pod):
                running = raw.running(time.time()) | {"podIP": script.address}
                await self._write(script, pod, running)

    async def release(self, script: Script) -> None:
        """Lets everything go on that was held."""
        script.held.clear()
        for pod in list(script.waiting.values()):
            await self._end(script, pod, script.role(pod))

    async def lose_node(self, script: Script, pod: Raw) -> None:
        """A pod's node is gone: Kubernetes marks the pod as disrupted and failed."""
        script.over.add(pod["metadata"]["uid"])
        script.waiting.pop(pod["metadata"]["uid"], None)
        lost = raw.ended(137, at=time.time())
        lost["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]
        await self._write(script, pod, lost)

    async def _stop(self, script: Script, pod: Raw, role: str) -> None:
        """SIGTERM: the trainer saves a checkpoint and says so; the other steps just end."""
        script.over.add(pod["metadata"]["uid"])
        script.waiting.pop(pod["metadata"]["uid"], None)
        preempted = raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted")
        ending = raw.said(preempted, ExitCode.PREEMPTED) if role == Step.TRAIN else raw.ended(SIGTERM_CODE)
        await self._write(script, pod, ending)

    async def _end(self, script: Script, pod: Raw, role: str) -> None:
        uid = pod["metadata"]["uid"]
        script.waiting.pop(uid, None)
        if uid in script.over:
            return
        script.over.add(uid)
        if is_step(pod):
            await self._write(script, pod, self._last_word(script, pod, role))
        else:
            digest = told(pod).partition("@")[2] or script.head[-1]
            await self._write(script, pod, raw.serving_status(raw.fetched(told(pod), digest)))

    def _last_word(self, script: Script, pod: Raw, role: str) -> Raw:
        metadata = {"namespace": script.place.namespace, "name": pod["metadata"]["name"], "labels": {"role": role}}
        self._ledger.note("said", role, {"metadata": metadata})
        if role == FIRST:
            return raw.said(raw.outcome(Step.CHECK, Result.FAILED, "DataInvalid"), ExitCode.USER_ERROR)
        if role in {PROVE, Step.PROMOTE, REVERT}:
            return _promote(script, promote_config(pod))
        return raw.said(raw.outcome(Step(role)))

    async def _write(self, script: Script, pod: Raw, status: Raw) -> None:
        metadata = pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}  # never another pod's
        answer = await script.place.client.patch(
            script.place.path("pods", metadata["name"], "status"),
            json=patch,
            headers={"Content-Type": "application/merge-patch+json"},
        )
        # It may have gone meanwhile, or ended: then it does not begin to run.
        assert answer.status_code in {200, 404, 409, 422}, answer.text

    # -- the training pods' progress --------------------------------------------------------------------------------

    async def serve_progress(self, script: Script) -> None:
        """Answers at the address of the namespace's training pod, as the trainer's first process does."""

        async def progress(_: web.Request) -> web.Response:
            if script.progress is None:
                return web.Response(status=503)
            stage, step, checkpoint = script.progress
            said = Progress(stage=stage, step=step, total=130, last_checkpoint=checkpoint, heartbeat=time.time())
            return web.Response(body=said.dump_json(), content_type="application/json")

        application = web.Application()
        application.router.add_get("/progress", progress)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, script.address, PROGRESS_PORT).start()
        self._runners.append(runner)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._runners:
            await runner.cleanup()


def _promote(script: Script, config: PromoteConfig) -> Raw:
    """What skill_store.promote does with the head: moved only from where it is expected, and not twice."""
    if config.digest == script.head[-1]:
        return raw.said(raw.outcome(Step.PROMOTE, message="the head is there already"))
    if config.parent_digest != script.head[-1]:
        return raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved"), ExitCode.USER_ERROR)
    if script.rejects and not config.prove_only:
        return raw.said(raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch", "A is not B"))
    if not config.prove_only:
        script.head.append(config.digest)
    return raw.said(raw.outcome(Step.PROMOTE))
