"""What is remembered holds until an event tells of something else; a look asks, and asks everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from skill_operator.engines import Engines
from skill_operator.kube import Kube, Retryable
from skill_operator.metrics import Metrics
from skill_operator.neighbours import Neighbours
from skill_operator.sight import Gone, Key, Lookout
from tests.operator import raw

UPDATES = "/apis/sdft.dev/v1alpha1"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
PODS = "/api/v1/namespaces/team/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/team/deployments/support-llm"
JOB_UID = "uid-of-job"


class Server:
    """Answers what a test puts into it, by path, and writes down what it was asked."""

    def __init__(self, update: raw.Raw) -> None:
        self.asked: list[str] = []
        self.objects: dict[str, raw.Raw] = {f"{UPDATES}/namespaces/team/skillupdates/refund-tool": update}
        self.lists: dict[str, list[raw.Raw]] = {}
        self.broken = ""
        """What it cannot answer, by the end of its path."""
        self.selects_fields = True
        self.forbidden: set[str] = set()
        """What it does not allow, by any step of its path."""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path.rpartition("/")[2])
        if not self.selects_fields and "fieldSelector" in request.query:
            return web.json_response({"message": "field label not supported: spec.model.uri"}, status=400)
        if self.forbidden & set(request.path.split("/")):
            return web.json_response({"message": "not allowed"}, status=403)
        if self.asked[-1] == self.broken:
            return web.json_response({"message": "etcd has no leader"}, status=503)
        if request.path in self.objects:
            return web.json_response(self.objects[request.path])
        if request.path.rpartition("/")[2] in {"jobs", "pods", "skillupdates", "leaderworkersets"}:
            return web.json_response({"metadata": {}, "items": self.lists.get(request.path, [])})
        return web.json_response({"message": "not found"}, status=404)

    def take_asked(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@asynccontextmanager
async def lookout(port: int, server: Server) -> AsyncIterator[Lookout]:
    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", server.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{port}")) as api:
            yield Lookout(Kube(api, Metrics()), Neighbours(), Engines(), (), Key("team", "refund-tool", raw.UID))
    finally:
        await runner.cleanup()


def at_work(**status: Any) -> raw.Raw:
    """An update that has left the queue, with a training Job."""
    body = raw.update()
    body["status"] = {"startTime": "2026-01-01T00:00:00Z", **status}
    return body


def job(version: str = "7") -> raw.Raw:
    metadata = {"name": "a-job", "uid": JOB_UID, "resourceVersion": version, "labels": {"sdft.dev/step": "train"}}
    return {"metadata": metadata}


@pytest.fixture
async def seen(unused_port: int) -> AsyncIterator[tuple[Lookout, Server]]:
    """A lookout that has looked once."""
    server = Server(at_work())
    server.lists[JOBS] = [job()]
    async with lookout(unused_port, server) as one:
        assert one.remembered() is None  # nothing is known before the first look
        sight = await one.look()
        assert [job.uid for job in sight.seen.jobs] == [JOB_UID]
        assert server.take_asked() == ["refund-tool", "jobs", "pods"]
        yield one, server


async def test_what_was_seen_holds_and_asks_nothing(seen: tuple[Lookout, Server]):
    one, server = seen
    one.notice(raw.UID, "1")
    one.notice(JOB_UID, "7")
    assert not one.wake.is_set()
    remembered = one.remembered()
    assert remembered is not None
    assert [job.uid for job in remembered.seen.jobs] == [JOB_UID]
    assert server.take_asked() == []


@pytest.mark.parametrize(
    ("uid", "version"),
    [(raw.UID, "2"), (JOB_UID, "8"), (JOB_UID, ""), ("uid-of-a-new-pod", "9")],
    ids=["the update changed", "the Job changed", "the Job went", "a pod came"],
)
async def test_whatever_is_not_as_it_was_seen_calls_for_a_look(seen: tuple[Lookout, Server], uid: str, version: str):
    one, _ = seen
    one.notice(uid, version)
    assert one.wake.is_set()
    assert one.remembered() is None
    assert one.remembered() is None  # until there has been one
    await one.look()
    assert one.remembered() is not None


async def test_end_of_what_was_never_seen_calls_for_nothing(seen: tuple[Lookout, Server]):
    one, _ = seen
    one.notice("uid-of-a-pod-between-two-looks", "")
    assert one.remembered() is not None


async def test_event_in_the_middle_of_a_look_is_not_lost(unused_port: int):
    server = Server(at_work())
    async with lookout(unused_port, server) as one:
        one.notice(JOB_UID, "")  # the list of Jobs, on its way, still has it
        server.lists[JOBS] = [job()]
        await one.look()
        assert one.remembered() is None


async def test_child_that_has_gone_without_an_event_is_found_missing(seen: tuple[Lookout, Server]):
    one, _ = seen
    one.confirm({raw.UID, JOB_UID, "uid-of-another"})
    assert one.remembered() is not None
    one.confirm({raw.UID})
    assert one.remembered() is None


async def test_own_write_is_remembered_and_its_event_is_no_news(seen: tuple[Lookout, Server]):
    one, server = seen
    written = at_work(phase="Training")
    written["metadata"]["resourceVersion"] = "2"
    one.wrote(written)
    one.notice(raw.UID, "2")
    remembered = one.remembered()
    assert remembered is not None
    assert (remembered.update.status["phase"], remembered.update.resource_version) == ("Training", "2")
    assert server.take_asked() == []


async def test_failed_look_leaves_nothing_to_remember(seen: tuple[Lookout, Server]):
    one, server = seen
    server.broken = "jobs"
    with pytest.raises(Retryable):
        await one.look()
    assert one.remembered() is None


async def test_update_of_the_same_name_is_another(seen: tuple[Lookout, Server]):
    one, server = seen
    server.objects = {path: raw.update(metadata={"uid": "another"}) for path in server.objects}
    with pytest.raises(Gone):
        await one.look()


async def test_before_its_turn_neighbours_are_asked_for_and_afterwards_watched(unused_port: int):
    server = Server(raw.update())
    other = raw.update(name="other", metadata={"uid": "other"})
    server.lists[f"{UPDATES}/skillupdates"] = [other]
    async with lookout(unused_port, server) as one:
        sight = await one.look()
        assert [neighbour.uid for neighbour in sight.seen.neighbours] == ["other"]
        assert server.take_asked() == ["refund-tool", "jobs", *["skillupdates"] * 3]  # two spellings, and the target
        one._neighbours.drop("other")
        remembered = one.remembered()
        assert remembered is not None
        assert remembered.seen.neighbours == ()
        assert server.take_asked() == []


async def test_neighbours_are_found_with_a_crd_that_selects_no_fields(unused_port: int):
    server = Server(raw.update(serving=False))
    server.selects_fields = False
    server.lists[f"{UPDATES}/skillupdates"] = [raw.update(name="other", metadata={"uid": "other"})]
    async with lookout(unused_port, server) as one:
        sight = await one.look()
    assert [neighbour.uid for neighbour in sight.seen.neighbours] == ["other"]


async def test_what_serves_nothing_meets_nobody_at_its_target(unused_port: int):
    update = raw.update(serving=False)
    published = {"version": raw.CHILD[0], "digest": raw.CHILD[1], "uri": raw.MODEL}
    update["status"] = {"startTime": "2026-01-01T00:00:00Z", "published": published}
    server = Server(update)
    async with lookout(unused_port, server) as one:
        await one.look()
    assert server.take_asked() == ["refund-tool", "jobs"]


async def test_serving_pods_of_a_rollout_are_looked_at_every_time(unused_port: int):
    rollout = {"candidate": raw.CANDIDATE, "startedAt": "2026-01-01T00:00:00Z", "deadline": "2027-01-01T00:00:00Z"}
    published = {"version": raw.CHILD[0], "digest": raw.CHILD[1], "uri": raw.MODEL}
    parent = {"version": raw.PARENT[0], "digest": raw.PARENT[1]}
    server = Server(at_work(parent=parent, published=published, rollout=rollout))
    deployment = raw.deployment()
    deployment["metadata"] |= {"uid": "uid-of-deployment", "resourceVersion": "3"}
    server.objects[DEPLOYMENT] = deployment
    async with lookout(unused_port, server) as one:
        sight = await one.look()
        assert sight.seen.target is not None
        assert one.targets == {"team/Deployment/support-llm"}
        assert server.take_asked() == ["refund-tool", "jobs", "support-llm", "pods"]
        assert one.remembered() is None


# -- targets of other kinds -----------------------------------------------------------------------------------------

SETS = "/apis/leaderworkerset.x-k8s.io/v1"


def to_be_rolled() -> raw.Raw:
    """An update with a published version, whose target is a LeaderWorkerSet."""
    published = {"version": raw.CHILD[0], "digest": raw.CHILD[1], "uri": raw.MODEL}
    body = at_work(published=published)
    body["spec"]["serving"]["targetRef"] = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "support-llm",
    }  # fmt: skip
    return body


def a_set() -> raw.Raw:
    template = raw.deployment()["spec"]["template"]
    metadata = {"name": "support-llm", "namespace": "team", "uid": "uid-of-set", "resourceVersion": "3"}
    return {"metadata": metadata, "spec": {"leaderWorkerTemplate": {"size": 1, "workerTemplate": template}}}


async def test_kind_that_is_not_installed_is_said_and_asked_for_again(unused_port: int):
    server = Server(to_be_rolled())
    server.forbidden = {"leaderworkersets"}  # rights are asked about before anything is looked for
    async with lookout(unused_port, server) as one:
        why = (await one.look()).seen.target_out_of_reach
        assert "does not serve LeaderWorkerSet" in why
        assert "https://" in why
        assert one.remembered() is None


async def test_kind_that_is_not_allowed_is_said_with_the_value_of_the_chart(unused_port: int):
    server = Server(to_be_rolled())
    server.forbidden = {"leaderworkersets"}
    server.objects[SETS] = {"resources": [{"name": "leaderworkersets"}]}
    async with lookout(unused_port, server) as one:
        assert "servingTargets.leaderWorkerSet=true" in (await one.look()).seen.target_out_of_reach


async def test_target_that_is_not_there_is_no_fault_of_its_kind(unused_port: int):
    server = Server(to_be_rolled())
    server.objects[SETS] = {"resources": [{"name": "leaderworkersets"}]}
    async with lookout(unused_port, server) as one:
        seen = (await one.look()).seen
    assert (seen.target, seen.target_out_of_reach) == (None, "")


async def test_kind_that_has_appeared_is_watched_from_then_on(unused_port: int):
    server = Server(to_be_rolled())
    server.objects[f"{SETS}/namespaces/team/leaderworkersets/support-llm"] = a_set()
    async with lookout(unused_port, server) as one:
        seen = (await one.look()).seen
        assert seen.target is not None
        assert one._engines.appeared.is_set()
        one._engines.appeared.clear()
        await one.look()
        assert not one._engines.appeared.is_set()
        assert one.remembered() is not None


async def test_kinds_that_may_not_be_listed_are_not_watched(unused_port: int):
    server = Server(to_be_rolled())
    server.forbidden = {"rollouts", "statefulsets"}
    async with lookout(unused_port, server) as one:
        kinds = await Engines().begin_targets(one._api, (None,))
    assert {kind.name for kind in kinds} == {"Deployment", "LeaderWorkerSet"}
