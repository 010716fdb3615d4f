"""kopf at work: it watches, and its handlers set flags. The only importer of kopf.

A handler never awaits the network. Each unsettled update has one task, a Reconciler; events of the update, of its Jobs
and pods, and of the target that it rolls, wake it. Why no kopf daemons: docs/decisions/0005.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import kopf

from skill_operator.api import (
    API_VERSION,
    FIELD_MANAGER,
    GROUP,
    MANAGED_BY_LABEL,
    PLURAL,
    UPDATE_UID_LABEL,
    VERSION,
)
from skill_operator.conditions import is_settled
from skill_operator.kube import JOBS, PODS, SKILL_UPDATES, KubeError
from skill_operator.neighbours import target_key
from skill_operator.reconcile import Reconciler, World
from skill_operator.sight import Key
from skill_operator.targets.kind import Kind

logger = logging.getLogger(__name__)
Body = Mapping[str, Any]
_OURS = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"
_JOBSETS = ("jobset.x-k8s.io", "v1alpha2", "jobsets")
_AUDIT_SECONDS = 600.0
"""How long what was deleted while a watch was broken may be remembered."""


class Desk:
    """The reconcilers at work, by the uid of their update."""

    def __init__(self, world: World, audit_seconds: float = 20.0) -> None:
        self._world = world
        self._audit_seconds = audit_seconds
        self._reconcilers: dict[str, Reconciler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._audit: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begins to look, now and then, for what has gone without an event."""
        self._keep(asyncio.create_task(self._audit_for_ever(), name="audits"))

    def attend(self, body: Body, *, is_gone: bool) -> None:
        """Takes an update's event: starts its reconciler where there is work, and wakes whoever waits for it."""
        metadata, spec = body["metadata"], body.get("spec") or {}
        uid, settled = metadata["uid"], is_settled(body)
        stands_aside = True
        if is_gone:
            self._lose(uid)
        else:
            self._world.metrics.census.take(body)
            one = self._world.neighbours.take(body)
            stands_aside = one is None or one.stands_aside
        if uid in self._reconcilers:
            self.notice(uid, body, is_gone=is_gone)
        elif not settled and not is_gone:
            self._start(Key(metadata["namespace"], metadata["name"], uid))
        if settled or stands_aside:
            self._wake_queue((spec.get("model") or {}).get("uri", ""), uid)

    def notice(self, uid: str, body: Body, *, is_gone: bool) -> None:
        """Takes an event of an update or of one of its children."""
        if uid in self._reconcilers:
            self._reconcilers[uid].lookout.notice(*_version(body, is_gone=is_gone))

    def notice_target(self, kind: str, body: Body, *, is_gone: bool) -> None:
        """Takes an event of what may be a serving target: some update may roll it, or wait for it."""
        key = target_key(body["metadata"]["namespace"], kind, body["metadata"]["name"])
        for reconciler in self._reconcilers.values():
            if key in reconciler.lookout.targets:
                reconciler.lookout.notice(*_version(body, is_gone=is_gone))

    def listed(self, uid: str) -> None:
        """Takes an update of a watch's beginning: one that is known already is a sign that the watch was broken."""
        if uid in self._world.metrics.census and (self._audit is None or self._audit.done()):
            self._audit = asyncio.create_task(self._audit_soon(), name="audit")
            self._keep(self._audit)

    async def _audit_soon(self) -> None:
        await asyncio.sleep(self._audit_seconds)  # one audit for all that the beginning brings
        await self._forget_lost()

    async def _audit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_AUDIT_SECONDS)
            await self._forget_lost()

    async def _forget_lost(self) -> None:
        """Forgets what was deleted while a watch was broken: when it begins again, it tells only of what is there."""
        known = self._world.metrics.census.uids
        namespaces: tuple[str | None, ...] = self._world.settings.watched or (None,)
        kinds = ((SKILL_UPDATES, ""), (JOBS, _OURS), (PODS, _OURS))
        there: set[str] = set()
        try:
            for namespace in namespaces:
                for kind, selector in kinds:
                    there |= await self._world.kube.uids(kind, namespace, selector)
        except KubeError as error:
            logger.warning("what is gone may be remembered for %.0f s more: %s", _AUDIT_SECONDS, error)
            return
        lost = known - there
        for uid in lost:
            self._lose(uid)
        for uid, reconciler in self._reconcilers.items():
            if uid in lost:
                reconciler.lookout.forget()
            reconciler.lookout.confirm(there)
            reconciler.lookout.wake.set()  # it may have waited for one that is gone

    def _lose(self, uid: str) -> None:
        self._world.metrics.census.drop(uid)
        self._world.neighbours.drop(uid)

    async def close(self) -> None:
        """Ends all work where it stands: whatever is half done, the next start sees and finishes."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake_queue(self, uri: str, but: str) -> None:
        for other in self._world.neighbours.of(uri):
            if other.uid != but and other.uid in self._reconcilers:
                self._reconcilers[other.uid].lookout.wake.set()

    def _start(self, key: Key) -> None:
        reconciler = Reconciler(self._world, key)
        self._reconcilers[key.uid] = reconciler
        task = asyncio.create_task(self._work(reconciler), name=f"{key.namespace}/{key.name}")
        self._keep(task)
        self._world.metrics.active.set(len(self._reconcilers))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _work(self, reconciler: Reconciler) -> None:
        key = reconciler.key
        try:
            await reconciler.run()
        finally:
            del self._reconcilers[key.uid]
            self._world.metrics.active.set(len(self._reconcilers))


def _version(body: Body, *, is_gone: bool) -> tuple[str, str]:
    metadata = body["metadata"]
    return metadata["uid"], "" if is_gone else metadata["resourceVersion"]


def registry(world: World) -> kopf.OperatorRegistry:
    """Returns kopf's handlers: watches of updates, of our Jobs and pods, and of serving targets."""
    handlers, desk = kopf.OperatorRegistry(), Desk(world)

    def noted(kind: str) -> None:
        world.metrics.last_watch.labels(kind).set(time.time())

    async def child(event: Any, **_: Any) -> None:
        noted("child")
        body = event["object"]
        uid = (body["metadata"].get("labels") or {}).get(UPDATE_UID_LABEL, "")
        desk.notice(uid, body, is_gone=event["type"] == "DELETED")

    def target_of(kind: Kind) -> Callable[..., Awaitable[None]]:
        async def target(event: Any, **_: Any) -> None:
            noted(kind.name)
            desk.notice_target(kind.name, event["object"], is_gone=event["type"] == "DELETED")

        return target

    @kopf.on.startup(id="crd", registry=handlers)
    async def crd(**_: Any) -> None:
        # Without the CRD kopf would start no watch, and say nothing.
        if not await world.kube.is_served(SKILL_UPDATES):
            raise kopf.PermanentError(f"the API server does not serve {API_VERSION} {PLURAL}: apply crds/ first")
        if await world.engines.begin(world.kube):
            kopf.on.event(*_JOBSETS, id="jobset", registry=handlers)(child)
        for kind in await world.engines.begin_targets(world.kube, world.settings.watched or (None,)):
            place = (*kind.api_version.split("/"), kind.plural)
            kopf.on.event(*place, id=kind.plural, registry=handlers)(target_of(kind))
        desk.open()

    @kopf.on.cleanup(id="close", registry=handlers)
    async def close(**_: Any) -> None:
        await desk.close()  # otherwise kopf waits five seconds for them

    @kopf.on.event(GROUP, VERSION, PLURAL, id="update", registry=handlers)
    async def update(event: Any, **_: Any) -> None:
        noted("SkillUpdate")
        if event["type"] is None:
            desk.listed(event["object"]["metadata"]["uid"])
        desk.attend(event["object"], is_gone=event["type"] == "DELETED")

    kopf.on.event("batch", "v1", "jobs", id="job", registry=handlers)(child)
    kopf.on.event("", "v1", "pods", id="pod", registry=handlers)(child)

    @kopf.on.login(id="login", registry=handlers)
    async def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    return handlers


class _NoComparison(kopf.DiffBaseStorage):
    """kopf compares each object with what it was, for kinds of handlers that there are none of here."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def kopf_settings() -> kopf.OperatorSettings:
    """Returns kopf's settings; the reasons of each are in the study of kopf that the project began with."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # another kopf operator in the cluster must never pause this one
    settings.scanning.disabled = True  # no rights on CRDs and namespaces needed
    settings.posting.enabled = False  # events are ours, with names that make them unique
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.watching.chunk_size = 100  # a page is held as a whole, and its memory does not come back
    settings.watching.label_selectors["batch", "v1", "jobs"] = _OURS
    settings.watching.label_selectors["", "v1", "pods"] = _OURS
    # A pod that ends leaves the watch, which is an event; its Job tells the rest. Years of ended pods stay outside.
    settings.watching.field_selectors["", "v1", "pods"] = "status.phase!=Succeeded,status.phase!=Failed"
    settings.watching.label_selectors[_JOBSETS] = _OURS
    settings.persistence.diffbase_storage = _NoComparison()
    settings.queueing.idle_timeout = 1.0  # until then kopf holds each object that it has shown, all of them at a start
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 4, 8, 15, 30) + (60,) * 8
    settings.networking.enforce_retry_after = True
    settings.execution.max_workers = 4
    settings.process.ultimate_exiting_timeout = 25
    return settings


async def watch(world: World, ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Watches, and reconciles what is seen, until stopped; ends with an error where a watch cannot go on.

    kopf watches only kinds that are there when it starts: when JobSet appears later, all watches are begun anew.
    """
    appeared = world.engines.appeared
    while True:
        appeared.clear()
        await _watch_until(world, ready, (stop, appeared))
        if stop.is_set() or not appeared.is_set():  # or a signal has ended it
            return


async def _watch_until(world: World, ready: asyncio.Event, ends: Iterable[asyncio.Event]) -> None:
    namespaces, halt = world.settings.watched, asyncio.Event()
    waiters = [asyncio.create_task(end.wait()) for end in ends]
    for waiter in waiters:
        waiter.add_done_callback(lambda _: halt.set())
    try:
        await kopf.operator(
            registry=registry(world),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            ready_flag=ready,
            stop_flag=halt,
        )
    finally:
        for waiter in waiters:
            waiter.cancel()


def configure_logging(*, level: str, is_json: bool) -> None:
    """Sets the format of the log: one line per change of an update."""
    kopf.configure(log_format=kopf.LogFormat.JSON if is_json else kopf.LogFormat.PLAIN, quiet=True)
    logging.getLogger("skill_operator").setLevel(level)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
