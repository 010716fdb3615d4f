"""What one update's task knows of the world, and whether that still holds.

A look reads the update, its children and its target from the API server. Watches tell when something that a look has
seen is not as it was; until then nothing is read again. Nothing is decided here, and nothing is ever done on what is
merely remembered: `reconcile` looks first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from http import HTTPStatus

from skill_contract.spec import Serving
from skill_contract.step import Step
from skill_operator import kube
from skill_operator.agent_client import AgentClient
from skill_operator.api import QUEUE_LABEL, UPDATE_UID_LABEL, WORKLOAD_OWNER_LABEL, ConditionType, SkillUpdate, parse
from skill_operator.engines import Engines
from skill_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    JOBSETS,
    PODS,
    SKILL_UPDATES,
    WORKLOADS,
    Kube,
    Object,
    kind_at,
)
from skill_operator.manifests.serving import adapter_config_map
from skill_operator.neighbours import Neighbours, of_model, of_target, target_key
from skill_operator.observed import Observed
from skill_operator.plan import needs_neighbours
from skill_operator.reading import step_jobs
from skill_operator.status import read
from skill_operator.targets import adapters
from skill_operator.targets.kind import Kind
from skill_operator.targets.read import is_going, kind_of, target
from skill_operator.trainer_client import TrainerClient


class Gone(Exception):  # noqa: N818 - not an error
    """The update does not exist any more."""


@dataclass(frozen=True, slots=True)
class Key:
    """Which object: a re-created one of the same name is another."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look saw."""

    update: SkillUpdate
    seen: Observed


class Lookout:
    """Looks after one update's world: reads it, remembers it, hears of changes."""

    def __init__(
        self, api: Kube, neighbours: Neighbours, engines: Engines, namespaces: tuple[str, ...], key: Key
    ) -> None:
        self.key = key
        self.wake = asyncio.Event()
        """Set whenever there is something to think about."""
        self.targets: frozenset[str] = frozenset()
        """Keys of the objects whose changes concern this update: its target, and the Deployment behind that."""
        self._api = api
        self._neighbours = neighbours
        self._engines = engines
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._sight: Sight | None = None
        self._versions: dict[str, str] = {}
        """By uid, the resourceVersion of every object that the look has read."""
        self._noticed: dict[str, str] = {}
        """The same, as events told since."""

    def notice(self, uid: str, version: str) -> None:
        """Takes an event of something that the update is made of; one of what has been seen already wakes nobody.

        Args:
            version: its resourceVersion; empty where it is gone.
        """
        if self._sight is None or self._versions.get(uid, "") != version:
            self._noticed[uid] = version
            self.wake.set()

    def remembered(self) -> Sight | None:
        """Returns what the last look saw, among the neighbours of now; None where it does not hold any more."""
        noticed, self._noticed = self._noticed, {}
        if any(self._versions.get(uid, "") != version for uid, version in noticed.items()):
            self._sight = None
        if self._sight is None or _is_rolling(self._sight.update) or _waits_untold(self._sight):
            return None
        return self._among_neighbours(self._sight)

    async def look(self) -> Sight:
        """Returns what there is now.

        Raises:
            Gone: the update is not there any more.
            KubeError: the API server could not be asked.
        """
        self._sight, self._versions = None, {}
        return await self.see(parse(await self._update()))

    async def see(self, update: SkillUpdate) -> Sight:
        """Returns what there is now around an update as it is given; raises KubeError as `look` does."""
        observed = await self._with_target(update, await self._children(update))
        if needs_neighbours(update, observed):
            await self._ask_for_neighbours(update)
        self._sight = Sight(update, observed)
        return self._among_neighbours(self._sight)

    def wrote(self, raw: Object) -> None:
        """Takes the update as a status write of our own left it: the event of that write tells nothing new."""
        self._neighbours.take(raw)
        self._versions |= _versions([raw])
        if self._sight is not None:
            after = replace(self._sight.update, resource_version=_version(raw), status=raw["status"])
            self._sight = replace(self._sight, update=after)

    def forget(self) -> None:
        """After an act, or a fault in the middle, nothing needs to be as it was."""
        self._sight = None

    def confirm(self, there: Set[str]) -> None:
        """Takes the uids of all Jobs and pods that there are: where one was seen that is not there, a look is due."""
        jobs = self._sight.seen.jobs if self._sight else ()
        seen = {job.uid for job in jobs if job.kind == "Job"} | {pod.uid for job in jobs for pod in job.pods}
        if not seen <= there:
            self.forget()

    async def _update(self) -> Object:
        raw = await self._api.find(SKILL_UPDATES, self.key.namespace, self.key.name)
        if raw is None or raw["metadata"]["uid"] != self.key.uid:
            self._neighbours.drop(self.key.uid)
            raise Gone
        self._versions |= _versions([raw])
        return raw

    async def _children(self, update: SkillUpdate) -> Observed:
        namespace, own = self.key.namespace, f"{UPDATE_UID_LABEL}={self.key.uid}"
        serves_jobset = _wants_jobset(update) and await self._engines.serve_jobset(self._api)
        # Before their pods: a Job that is seen complete has its pods' last words in any later list of pods.
        jobsets = await self._api.list(JOBSETS, namespace, own) if serves_jobset else []
        jobs = await self._api.list(JOBS, namespace, own)
        pods = await self._api.list(PODS, namespace, own) if jobs else []
        self._versions |= _versions([*jobsets, *jobs, *pods])
        workloads = await self._workloads([*jobsets, *jobs])
        return Observed(jobs=step_jobs(jobs, pods, jobsets, workloads), serves_jobset=serves_jobset)

    async def _workloads(self, jobs: list[Object]) -> list[Object]:
        """Returns Kueue's Workloads of the Jobs that were given to a queue of its; none where there is no Kueue."""
        uids = [job["metadata"]["uid"] for job in jobs if QUEUE_LABEL in (job["metadata"].get("labels") or {})]
        if not uids:
            return []
        try:
            return await self._api.list(WORKLOADS, self.key.namespace, f"{WORKLOAD_OWNER_LABEL} in ({','.join(uids)})")
        except kube.Missing:
            return []

    async def _with_target(self, update: SkillUpdate, observed: Observed) -> Observed:
        serving = update.spec.serving if update.spec else None
        if serving is None or (read(update.status).published is None and not _has_made(observed)):
            return observed
        kind, name = kind_of(serving.target_ref.kind), serving.target_ref.name
        # Before reading: a change meanwhile is heard.
        self.targets = frozenset({target_key(self.key.namespace, kind.name, name)})
        try:
            raw = await self._api.find(kind_at(kind.api_version, kind.plural), self.key.namespace, name)
        except kube.Refused as error:
            if error.code != HTTPStatus.FORBIDDEN or not kind.switch:
                raise
            return replace(observed, target_out_of_reach=await self._why_out_of_reach(kind))
        if raw is None:
            return replace(observed, target_out_of_reach=await self._why_out_of_reach(kind) if kind.site else "")
        await self._engines.found(self._api, kind, self._namespaces)
        return observed if is_going(raw) else await self._with_pods(kind, raw, serving, observed)

    async def _with_pods(self, kind: Kind, raw: Object, serving: Serving, observed: Observed) -> Observed:
        self._versions |= _versions([raw])
        behind = await self._behind(kind.behind(raw))
        standing = kind.read(raw, behind)
        pods = await self._api.list(PODS, self.key.namespace, standing.selector) if standing.selector else []
        if serving.strategy != "Adapter":
            return replace(observed, target=target(kind, raw, standing, pods, serving.container))
        name = adapter_config_map(raw["metadata"]["name"])
        try:
            config_map = await self._api.find(CONFIG_MAPS, self.key.namespace, name)
        except kube.Refused as error:
            if error.code != HTTPStatus.FORBIDDEN:
                raise
            return replace(observed, target_out_of_reach=_no_config_map(name))
        live = adapters.live_target(kind, raw, standing, pods, serving.container, config_map=config_map)
        return replace(observed, target=live)

    async def _behind(self, name: str) -> Object | None:
        """Returns the Deployment behind a target."""
        if not name:
            return None
        self.targets |= {target_key(self.key.namespace, "Deployment", name)}
        found = await self._api.find(DEPLOYMENTS, self.key.namespace, name)
        self._versions |= _versions([found] if found else [])
        return found

    async def _why_out_of_reach(self, kind: Kind) -> str:
        """Returns why no target of a kind can be seen, and the way out; empty where it could."""
        if not await self._api.is_served(kind_at(kind.api_version, kind.plural)):
            return (
                f"this cluster does not serve {kind.name} ({kind.api_version}): install it ({kind.site}), and this "
                "update goes on by itself"
            )
        if await self._api.may_list(kind_at(kind.api_version, kind.plural), self.key.namespace):
            return ""
        return (
            f"the operator may not read {kind.plural} ({kind.api_version}): upgrade its chart with "
            f"servingTargets.{kind.switch}=true, and this update goes on by itself"
        )

    async def _ask_for_neighbours(self, update: SkillUpdate) -> None:
        """Brings the neighbours up to date: the watch may lag, and two updates of one model must not begin at once."""
        assert update.spec is not None, "asked by a plan that reads the spec"
        for namespace in self._namespaces:
            for fields in of_model(update.spec.model.uri):
                await self._take(namespace, fields)
        if update.spec.serving:
            await self._take(update.namespace, of_target(update.spec.serving.target_ref.name))

    async def _take(self, namespace: str | None, fields: str) -> None:
        try:
            raws = await self._api.list(SKILL_UPDATES, namespace, fields=fields)
        except kube.Refused as error:
            if error.code != 400:
                raise
            raws = await self._api.list(SKILL_UPDATES, namespace)  # a CRD from before its selectableFields
        for raw in raws:
            self._neighbours.take(raw)

    def _among_neighbours(self, sight: Sight) -> Sight:
        spec = sight.update.spec
        if spec is None:
            return sight
        return replace(sight, seen=replace(sight.seen, neighbours=self._neighbours.of(spec.model.uri)))


def _no_config_map(name: str) -> str:
    return (
        f"the operator may not read ConfigMap {name}, by which pods are told their adapter: upgrade its chart with "
        "its name in servingTargets.adapters, and this update goes on by itself"
    )


async def with_progress(observed: Observed, trainers: TrainerClient) -> Observed:
    """Returns what is seen with what the trainer that runs now, if there is one, says of its progress."""
    trainer = _running_trainer(observed)
    return replace(observed, progress=await trainers.progress(trainer) if trainer else None)


async def with_reports(observed: Observed, update: SkillUpdate, agents: AgentClient) -> Observed:
    """Returns what is seen with what the agents beside the engines of a live target say."""
    serving, seen = update.spec.serving if update.spec else None, observed.target
    if serving is None or seen is None or not seen.is_live:
        return observed
    reports = await agents.reports(seen.pods, serving.port)
    return replace(observed, target=adapters.reported(seen, reports, serving.port))


def _running_trainer(observed: Observed) -> str:
    """Returns the address of the pod that trains; empty where none does."""
    job = observed.job(Step.TRAIN)
    pod = next((pod for pod in job.pods if pod.index == 0 and pod.running and pod.ip), None) if job else None
    return pod.ip if pod else ""


def _has_made(observed: Observed) -> bool:
    """Returns whether a version is there by what the children say: trained, or found by the check."""
    check, train = observed.job(Step.CHECK), observed.job(Step.TRAIN)
    found = check is not None and any(pod.outcome and pod.outcome.published for pod in check.pods)
    return found or (train is not None and train.complete)


def _is_rolling(update: SkillUpdate) -> bool:
    """Returns whether serving pods are looked at: they have no label of ours, so that no watch tells of them."""
    known = read(update.status)
    return known.rollout is not None or known.is_true(ConditionType.TARGET_BUSY)


def _wants_jobset(update: SkillUpdate) -> bool:
    return update.spec is not None and update.spec.training.nodes > 1


def _waits_untold(sight: Sight) -> bool:
    """Returns whether it waits for what no watch tells of: an engine or a kind that is missing, a queue of Kueue's."""
    if sight.seen.target_out_of_reach:
        return True
    is_queued = any(job.suspended and job.queue and not job.is_over for job in sight.seen.jobs)
    return is_queued or (_wants_jobset(sight.update) and not sight.seen.serves_jobset)


def _versions(objects: Iterable[Object]) -> dict[str, str]:
    return {raw["metadata"]["uid"]: _version(raw) for raw in objects}


def _version(raw: Object) -> str:
    return str(raw["metadata"]["resourceVersion"])
