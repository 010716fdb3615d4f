"""What one pass makes of an API server's odd answers: a server of our own says them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from skill_operator import kube
from skill_operator.actions import Action, ApplyWeights, CreateJob
from skill_operator.agent_client import AgentClient
from skill_operator.api import Reason, parse
from skill_operator.kube import Kube
from skill_operator.metrics import Metrics
from skill_operator.prometheus import Prometheus
from skill_operator.reconcile import Reconciler, World
from skill_operator.settings import Settings
from skill_operator.sight import Key
from skill_operator.trainer_client import TrainerClient
from tests.operator import raw

CREATE = CreateJob({"kind": "Job", "metadata": {"name": "a-job", "namespace": "team"}})
APPLY = ApplyWeights(raw.PLACE, raw.CANDIDATE)


@asynccontextmanager
async def reconciler(port: int, answers: dict[str, tuple[int, dict[str, Any]]]) -> AsyncIterator[Reconciler]:
    """A reconciler whose API server gives these answers, by method."""

    async def answer(request: web.Request) -> web.Response:
        status, body = answers[request.method]
        return web.json_response(body, status=status)

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    metrics = Metrics()
    try:
        host = client.Configuration(host=f"http://127.0.0.1:{port}")
        async with (
            client.ApiClient(host) as api,
            TrainerClient() as trainers,
            AgentClient() as agents,
            Prometheus("") as prometheus,
        ):
            world = World(Settings("t", "s"), Kube(api, metrics), trainers, agents, prometheus, metrics)
            yield Reconciler(world, Key("team", "refund-tool", raw.UID))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("action", "answers"),
    [
        # A quota that two requests changed at once; no Job of this name is there.
        (CREATE, {"POST": (409, {"message": "the object has been modified"}), "GET": (404, {})}),
        # The Deployment's status was written at the same time; no manager is named.
        (APPLY, {"PATCH": (409, {"message": "the object has been modified"})}),
    ],
)
async def test_conflict_that_passes_is_no_refusal(
    unused_port: int, action: Action, answers: dict[str, tuple[int, dict[str, Any]]]
):
    async with reconciler(unused_port, answers) as one:
        with pytest.raises(kube.Conflict):
            await one._apply(parse(raw.update()), (action,))


async def test_field_of_another_manager_is_a_refusal(unused_port: int):
    causes = [{"message": 'conflict with "argocd" using apps/v1'}]
    async with reconciler(unused_port, {"PATCH": (409, {"details": {"causes": causes}})}) as one:
        _, (refusal,) = await one._apply(parse(raw.update()), (APPLY,))
    assert (refusal.reason, "argocd" in refusal.message) == (Reason.GITOPS_CONFLICT, True)


async def test_job_of_somebody_else_is_a_refusal(unused_port: int):
    answers = {"POST": (409, {}), "GET": (200, {"metadata": {"name": "a-job"}})}
    async with reconciler(unused_port, answers) as one:
        _, (refusal,) = await one._apply(parse(raw.update()), (CREATE,))
    assert refusal.reason == Reason.NAME_CONFLICT
