"""Updates as a cluster has them after a year: most have ended, with their Jobs and pods; some train.

What has ended is written as it would have become; what trains goes its own way, through operator, Job controller and
KWOK.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.place import COLLECTIONS
from tests.operator.sim import Sim

from skill_operator.api import to_rfc3339

NAMESPACE = "bench"
_AT_ONCE = 24
_BUSY = (429, 500, 504)
_TEMPLATE = "template-name"
Raw = dict[str, Any]


class Api:
    """The API server as its administrator."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server
        self._places = asyncio.Semaphore(_AT_ONCE)

    def url(self, kind: str, name: str = "", part: str = "") -> str:
        steps = (self._server + COLLECTIONS[kind], "namespaces", NAMESPACE, kind, name, part)
        return "/".join(step for step in steps if step)

    async def create(self, kind: str, document: Raw) -> Raw:
        return await self._send("POST", self.url(kind), document, "application/json")

    async def patch(self, kind: str, name: str, patch: Raw, part: str = "") -> Raw:
        return await self._send("PATCH", self.url(kind, name, part), patch, "application/merge-patch+json")

    async def list(self, kind: str, selector: str, phase: str) -> list[Raw]:
        """Returns the objects of a label selector that are in a phase."""
        query = {"labelSelector": selector, "fieldSelector": f"status.phase={phase}"}
        async with self._session.get(self.url(kind), params=query) as answer:
            return (await answer.json())["items"]

    async def watch(self, kind: str, since: str) -> AsyncIterator[Raw]:
        """Yields the objects of a kind as they change, for ever."""
        query = {"watch": "1", "resourceVersion": since}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self.url(kind), params=query, timeout=timeout) as answer:
            async for line in answer.content:
                yield json.loads(line)["object"]

    async def now(self, kind: str) -> str:
        """Returns the resourceVersion of this moment."""
        async with self._session.get(self.url(kind), params={"limit": "1"}) as answer:
            return str((await answer.json())["metadata"]["resourceVersion"])

    async def _send(self, method: str, url: str, document: Raw, content: str) -> Raw:
        headers, data = {"Content-Type": content}, json.dumps(document)
        async with self._places:
            for retry, pause in enumerate((1, 4, 16, 0)):
                async with self._session.request(method, url, data=data, headers=headers) as got:
                    text = await got.text()
                if got.status < 300:
                    return json.loads(text)
                if got.status == 409 and retry and method == "POST":  # an earlier try came through, unseen
                    return await self._get(f"{url}/{document['metadata']['name']}")
                if got.status not in _BUSY or not pause:
                    break
                await asyncio.sleep(pause)
        raise RuntimeError(f"{method} {url}: {got.status}: {text[:500]}")

    async def _get(self, url: str) -> Raw:
        async with self._session.get(url) as got:
            return await got.json()


@asynccontextmanager
async def connect(plane: ControlPlane) -> AsyncIterator[Api]:
    """Yields the API server of a control plane."""
    pki = plane.authority.folder
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "user-admin.crt", pki / "user-admin.key")
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        yield Api(session, plane.endpoints.server)


async def all_of(tasks: Iterable[Coroutine[Any, Any, Any]]) -> None:
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(task)


def _update(name: str) -> Raw:
    """Every update has a model of its own: nobody waits for another."""
    body = raw.update(name=name, serving=False, model={"uri": f"s3://models/{name}"}, training={"gpusPerNode": 1})
    return body | {"metadata": {"name": name, "namespace": NAMESPACE}}


async def train(api: Api, count: int) -> None:
    """Creates updates that will train."""
    await all_of(api.create("skillupdates", _update(f"active-{index:05}")) for index in range(count))


@dataclass(frozen=True)
class _Life:
    """An update that has been promoted, with its Jobs, as JSON in which name and uid are still to be filled in."""

    status: str
    jobs: tuple[str, ...]

    @classmethod
    def lived(cls) -> _Life:
        sim = Sim(_update(_TEMPLATE) | {"status": {}})
        sim.body["metadata"] |= {"uid": raw.UID, "generation": 1, "creationTimestamp": to_rfc3339(raw.NOW)}
        for step in ("check", "train", "promote"):
            sim.settle()
            sim.finish(step)
        sim.settle()
        return cls(json.dumps(sim.body["status"]), tuple(json.dumps(job) for job in sim.jobs.values()))


async def settle(api: Api, count: int) -> None:
    """Creates updates that have ended, each with three Jobs and their pods."""
    life = _Life.lived()
    names = [f"settled-{index:05}" for index in range(count)]
    for begin in range(0, count, 100):
        await all_of(_settle(api, life, name) for name in names[begin : begin + 100])


async def _settle(api: Api, life: _Life, name: str) -> None:
    uid = (await api.create("skillupdates", _update(name)))["metadata"]["uid"]

    def filled(text: str) -> Raw:
        return json.loads(text.replace(_TEMPLATE, name).replace(raw.UID, uid))

    await api.patch("skillupdates", name, {"status": filled(life.status)}, "status")
    await all_of(_end(api, filled(job)) for job in life.jobs)


async def _end(api: Api, job: Raw) -> None:
    step = job["metadata"]["labels"]["sdft.dev/step"]
    del job["metadata"]["uid"], job["status"]
    job["spec"]["managedBy"] = "sdft.dev/benchmark"  # the Job controller leaves it as it is
    made = await api.create("jobs", job)
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    at = to_rfc3339(raw.NOW)
    ends = [raw.job_condition(kind) for kind in ("SuccessCriteriaMet", "Complete")]
    over = {"startTime": at, "completionTime": at, "succeeded": 1, "conditions": ends}
    await api.patch("jobs", name, {"status": over}, "status")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}
    template = made["spec"]["template"]
    metadata = {"name": f"{name}-0", "labels": template["metadata"]["labels"], "ownerReferences": [owner]}
    pod = {"metadata": metadata, "spec": template["spec"] | {"nodeName": "node-0"}}
    await api.create("pods", pod)
    kind = raw.Step("promote" if step == "revert" else step)
    await api.patch("pods", f"{name}-0", {"status": raw.said(raw.outcome(kind))}, "status")
