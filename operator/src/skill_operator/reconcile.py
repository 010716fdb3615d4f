"""One pass over one update (observe, plan, apply, write the status once), and the loop that makes passes.

All that is imperative about an update is here; what to do is decided in `plan`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from skill_operator import kube
from skill_operator.actions import (
    Action,
    AddFinalizer,
    ApplyWeights,
    CreateJob,
    DeleteJob,
    DeletePod,
    News,
    NoteRollback,
    PatchJob,
    Refusal,
    RemoveFinalizer,
)
from skill_operator.agent_client import AgentClient
from skill_operator.api import (
    API_VERSION,
    FIELD_MANAGER,
    FINALIZER,
    KIND,
    ROLLBACK_ANNOTATION,
    ConditionType,
    Reason,
    SkillUpdate,
    to_unix,
)
from skill_operator.engines import Engines
from skill_operator.kube import EVENTS, JOBS, JOBSETS, PODS, SKILL_UPDATES, Kube
from skill_operator.manifests.serving import weights_patch
from skill_operator.metrics import Metrics
from skill_operator.names import event_name
from skill_operator.neighbours import Neighbours
from skill_operator.plan import Plan, asks, plan
from skill_operator.prometheus import Prometheus
from skill_operator.reading import is_child, lost_labels
from skill_operator.settings import Settings
from skill_operator.sight import Gone, Key, Lookout, Sight, with_progress, with_reports
from skill_operator.status import merge_patch, read
from skill_operator.trainer_client import TrainerClient

logger = logging.getLogger(__name__)
_QUIET = ("training", "progress", "gpuSeconds")
"""Parts of the status that are progress only."""
_CLOCKS = {"gpuSeconds"}
"""Parts that grow while nothing happens: they are written along with others, never for themselves."""


_LEAST_PAUSE = 0.5
"""Seconds between two looks of which the first changed nothing: no plan can make a busy loop."""
_BY_KIND = {"Job": JOBS, "JobSet": JOBSETS}
_NOTE_BYTES = 1024
"""events.k8s.io/v1 Event.note, "at most 1kB"."""


@dataclass(slots=True)
class World:
    """What passes share."""

    settings: Settings
    kube: Kube
    trainers: TrainerClient
    agents: AgentClient
    prometheus: Prometheus
    metrics: Metrics
    neighbours: Neighbours = field(default_factory=Neighbours)
    engines: Engines = field(default_factory=Engines)


class Reconciler:
    """Brings one update to its end, pass by pass."""

    def __init__(self, world: World, key: Key) -> None:
        self.world = world
        self.key = key
        self.lookout = Lookout(world.kube, world.neighbours, world.engines, world.settings.watched, key)
        self._fields = {"namespace": key.namespace, "update": key.name}
        """What each line of the log carries, beside its text."""
        self._written = float("-inf")
        self._failures = 0
        self._told: set[str] = set()

    async def run(self) -> None:
        """Makes passes until nothing is left to do."""
        while True:
            self.lookout.wake.clear()  # before looking, so that nothing that happens meanwhile is lost
            pause = await self._guarded_pass()
            if pause is None and not self.lookout.wake.is_set():
                return
            await _first_of(self.lookout.wake, pause or 0)

    async def _guarded_pass(self) -> float | None:
        """Returns the seconds until the next pass, after a fault with growing pauses; None when all is done."""
        metrics = self.world.metrics
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.world.settings.pass_seconds):
                pause = await self.one_pass()
        except Gone:
            metrics.census.drop(self.key.uid)
            return None
        except kube.Conflict as conflict:
            metrics.reconciles.labels("conflict").inc()
            logger.debug("%s: %s", self.key, conflict, extra=self._fields)
            return self._backoff(0.2)
        except (kube.KubeError, TimeoutError) as error:
            metrics.reconciles.labels("error").inc()
            logger.warning("%s: %s", self.key, error or "the pass took too long", extra=self._fields)
            return self._backoff(1.0)
        except Exception:
            metrics.reconciles.labels("crash").inc()
            logger.exception("%s: the pass failed", self.key, extra=self._fields)
            return self._backoff(1.0)
        self._failures = 0
        metrics.reconciles.labels("ok").inc()
        metrics.reconcile_seconds.observe(time.monotonic() - started)
        metrics.last_success.set_to_current_time()
        return pause

    def _backoff(self, first: float) -> float:
        self.lookout.forget()
        self._failures += 1
        return random.uniform(0.5, 1) * min(60.0, first * 2.0 ** min(self._failures - 1, 10))

    async def one_pass(self) -> float | None:
        """Returns the seconds until the next pass, None when nothing is left to do.

        What is remembered is enough to see that nothing is to be done, and to write mere progress; before anything
        else there is a look.

        Raises:
            Gone: the object is not there any more.
            KubeError: the API server could not be asked, or somebody was faster.
        """
        sight = self.lookout.remembered()
        if sight is not None:
            planned = await self._plan(sight)
            if not self._changes_something(sight.update, planned):
                return await self._write(sight.update, sight.update.resource_version, planned)
        sight = await self.lookout.look()
        planned = await self._plan(sight)
        version, refusals = await self._apply(sight.update, planned.actions)
        if refusals:
            planned = await self._plan(replace(sight, seen=replace(sight.seen, refusals=refusals)))
        return await self._write(sight.update, version, planned)

    async def _plan(self, sight: Sight) -> Plan:
        seen = await with_progress(sight.seen, self.world.trainers)
        seen = await with_reports(seen, sight.update, self.world.agents)
        answers = await self.world.prometheus.ask(asks(sight.update, seen, time.time()))
        return plan(sight.update, replace(seen, answers=answers), self.world.settings.images, time.time())

    def _changes_something(self, update: SkillUpdate, planned: Plan) -> bool:
        """Returns whether a plan does or says more than progress."""
        untold = any(_event_name(update, news) not in self._told for news in planned.alerts)
        return bool(planned.actions) or untold or _is_urgent(update.status, planned.status)

    async def _apply(self, update: SkillUpdate, actions: tuple[Action, ...]) -> tuple[str, tuple[Refusal, ...]]:
        """Returns the object's resourceVersion after the actions, and what was refused."""
        version, refusals = update.resource_version, []
        if actions:
            self.lookout.forget()
        for action in actions:
            try:
                version = await self._carry_out(update, action, version)
            except kube.Refused as error:
                refusals.append(Refusal(action, Reason.CREATE_REFUSED, str(error)))
            except _Occupied as error:
                refusals.append(Refusal(action, error.reason, str(error)))
        return version, tuple(refusals)

    async def _carry_out(self, update: SkillUpdate, action: Action, version: str) -> str:
        api, namespace = self.world.kube, update.namespace
        match action:
            case CreateJob():
                await self._create(update, action)
            case PatchJob():
                await api.patch(_BY_KIND[action.kind], namespace, action.name, action.patch)
            case DeleteJob():
                await api.delete(_BY_KIND[action.kind], namespace, action.name, action.uid)
            case DeletePod():
                await api.delete(PODS, namespace, action.name, action.uid)
            case ApplyWeights():
                await self._apply_weights(namespace, action)
            case AddFinalizer():
                return await self._set_finalizers(update, version, {*update.finalizers, FINALIZER})
            case RemoveFinalizer():
                return await self._set_finalizers(update, version, {*update.finalizers} - {FINALIZER})
            case NoteRollback():
                return await self._set_metadata(update, version, {"annotations": {ROLLBACK_ANNOTATION: action.note}})
        return version

    async def _create(self, update: SkillUpdate, action: CreateJob) -> None:
        kind = _BY_KIND[action.kind]
        try:
            await self.world.kube.create(kind, action.manifest)
        except kube.Conflict:
            there = await self.world.kube.find(kind, update.namespace, action.name)
            if there is None:
                raise  # it went meanwhile, or the conflict was about something else, such as a quota
            if not is_child(there, update.uid):
                message = f"{action.kind} {action.name} exists and is not this SkillUpdate's: delete or rename it"
                raise _Occupied(Reason.NAME_CONFLICT, message) from None
            lost = lost_labels(there, action.manifest)
            if lost:  # by somebody's hand: without them it is not found
                await self.world.kube.patch(kind, update.namespace, action.name, {"metadata": {"labels": lost}})

    async def _apply_weights(self, namespace: str, action: ApplyWeights) -> None:
        place = action.place
        manifest = weights_patch(place, action.weights, hold=action.hold, beside=action.beside)
        try:
            await self.world.kube.apply(kube.kind_at(place.api_version, place.plural), namespace, manifest)
        except kube.Conflict as conflict:
            if not conflict.causes:
                raise  # nobody's field: the object was written at the same moment
            field = f"spec.paused of {place.title}" if action.hold and not place.beside else place.words
            message = (
                f"{field} belongs to {kube.conflicting_managers(conflict)}: remove it from there "
                "(Git, most often), so that this operator may set it"
            )
            raise _Occupied(Reason.GITOPS_CONFLICT, message) from conflict

    async def _set_finalizers(self, update: SkillUpdate, version: str, finalizers: set[str]) -> str:
        if finalizers == set(update.finalizers):
            return version
        return await self._set_metadata(update, version, {"finalizers": sorted(finalizers)})

    async def _set_metadata(self, update: SkillUpdate, version: str, changes: Mapping[str, Any]) -> str:
        patch = {"metadata": {**changes, "resourceVersion": version}}
        after = await self.world.kube.patch(SKILL_UPDATES, update.namespace, update.name, patch)
        return str(after["metadata"].get("resourceVersion", version))

    async def _write(self, update: SkillUpdate, version: str, planned: Plan) -> float | None:
        """Writes the status where it changed, and mere progress not too often; returns when to look again."""
        for news in planned.alerts:
            await self._tell(update, news)
        patch = merge_patch(update.status, planned.status)
        if patch.keys() <= _CLOCKS:
            patch = {}
        if update.deleting and planned.requeue_after is None:
            return None
        if not patch:
            return None if planned.requeue_after is None else max(planned.requeue_after, _LEAST_PAUSE)
        due = self._written + self.world.settings.status_seconds - time.monotonic()
        if due > 0 and not _is_urgent(update.status, planned.status):
            return due if planned.requeue_after is None else max(min(due, planned.requeue_after), _LEAST_PAUSE)
        for news in planned.news:  # before the status: told twice is told once, by the events' names; lost is lost
            await self._tell(update, news)
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        try:
            raw = await self.world.kube.patch(SKILL_UPDATES, update.namespace, update.name, body, part="status")
        except kube.Missing:
            raise Gone from None
        self.lookout.wrote(raw)
        self._written = time.monotonic()
        self._report(update, planned)
        return planned.requeue_after

    def _report(self, update: SkillUpdate, planned: Plan) -> None:
        created = to_unix(update.created) or time.time()
        self.world.metrics.changed(update.status, planned.status, created)
        phase, ready = planned.status["phase"], read(planned.status).condition(ConditionType.READY)
        reason, message = (ready.reason, ready.message) if ready else ("", "")
        logger.info("%s: %s: %s", self.key, phase, message, extra={**self._fields, "phase": phase, "reason": reason})

    async def _tell(self, update: SkillUpdate, news: News) -> None:
        """Posts an Event; the same news has the same name, so it is told once, by however many operators."""
        name = _event_name(update, news)
        if name in self._told:
            return
        self._told.add(name)
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": update.namespace},
            "eventTime": now,
            "reportingController": FIELD_MANAGER,
            "reportingInstance": FIELD_MANAGER,
            "action": news.reason,
            "reason": news.reason,
            "note": news.message.encode()[:_NOTE_BYTES].decode(errors="ignore"),
            "type": "Warning" if news.warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": update.namespace,
                "name": update.name,
                "uid": update.uid,
            },
        }
        try:
            await self.world.kube.create(EVENTS, event)
        except kube.Conflict:
            return
        except kube.KubeError as error:
            logger.warning("%s: an event was lost: %s", self.key, error, extra=self._fields)
        else:
            self.world.metrics.told(news.reason)


class _Occupied(Exception):  # noqa: N818 - carries a reason to `_apply`
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _event_name(update: SkillUpdate, news: News) -> str:
    words = () if news.once else (news.message,)
    return event_name(update.name, update.uid, news.reason, *words)


def _is_urgent(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether more than progress changed; the wording of a condition that stays is progress, too."""

    def essence(status: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in status.items() if key not in _QUIET}
        kept["conditions"] = [(c["type"], c["status"], c.get("reason")) for c in status.get("conditions") or ()]
        return kept

    return essence(old) != essence(new)


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
