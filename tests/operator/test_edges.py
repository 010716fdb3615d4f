"""Settings, command line, metrics, health, trainer client and API errors: the edges, without a cluster."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from skill_contract.progress import Progress, Stage
from skill_operator import kube
from skill_operator.cli import main
from skill_operator.health import serve_health
from skill_operator.kube import Kind, conflicting_managers
from skill_operator.settings import SettingsError, read_settings
from skill_operator.trainer_client import TrainerClient

IMAGES = {"SKILL_TRAINER_IMAGE": "t:1", "SKILL_STORE_IMAGE": "s:1"}


def test_settings_come_from_the_environment_with_defaults():
    settings = read_settings(IMAGES | {"SKILL_NAMESPACES": "a, b,", "SKILL_METRICS_PORT": "0", "OTHER": "x"})
    assert (settings.watched, settings.metrics_port, settings.health_port) == (("a", "b"), 0, 8080)
    assert (settings.images.trainer, settings.images.store) == ("t:1", "s:1")


def test_all_problems_of_the_settings_are_named_at_once():
    with pytest.raises(SettingsError) as error:
        read_settings({"SKILL_METRICS_PORT": "many", "SKILL_PASS_SECONDS": "long"})
    for word in ("SKILL_TRAINER_IMAGE", "SKILL_STORE_IMAGE", "SKILL_METRICS_PORT", "'many'", "SKILL_PASS_SECONDS"):
        assert word in str(error.value)


def test_run_without_settings_ends_with_a_clear_word(capsys, monkeypatch):
    for variable in IMAGES:
        monkeypatch.delenv(variable, raising=False)
    assert main(["run"]) == 64
    assert "SKILL_TRAINER_IMAGE" in capsys.readouterr().err


async def test_health_answers_and_says_when_it_is_ready(unused_port):
    ready = asyncio.Event()
    runner = await serve_health(unused_port, ready)
    try:
        async with aiohttp.ClientSession() as session:
            answers = []
            for path in ("healthz", "readyz"):
                async with session.get(f"http://127.0.0.1:{unused_port}/{path}") as response:
                    answers.append(response.status)
            ready.set()
            async with session.get(f"http://127.0.0.1:{unused_port}/readyz") as response:
                answers.append(response.status)
    finally:
        await runner.cleanup()
    assert answers == [200, 503, 200]


@pytest.mark.parametrize(
    ("body", "status", "readable"),
    [
        (Progress(stage=Stage.TRAINING, step=3, heartbeat=1.0).dump_json(), 200, True),
        ("not JSON", 200, False),
        ("{}", 200, False),
        ("oops", 500, False),
    ],
)
async def test_trainer_says_how_far_it_is_or_nothing(unused_port, body: str, status: int, *, readable: bool):
    async def progress(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    app = web.Application()
    app.add_routes([web.get("/progress", progress)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_port).start()
    try:
        async with TrainerClient(unused_port) as client:
            seen = await client.progress("127.0.0.1")
    finally:
        await runner.cleanup()
    assert (seen is not None) == readable


async def test_trainer_that_is_not_there_says_nothing(unused_port):
    async with TrainerClient(unused_port) as client:
        assert await client.progress("127.0.0.1") is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [(404, kube.Missing), (409, kube.Conflict), (429, kube.Retryable), (500, kube.Retryable), (503, kube.Retryable),
     (401, kube.Retryable), (403, kube.Refused), (422, kube.Refused), (400, kube.Refused)],
)  # fmt: skip
def test_every_answer_has_its_kind_of_error(code: int, kind: type[kube.KubeError]):
    error = kube._error(code, {"message": "words"}, "GET /x")
    assert type(error) is kind
    assert "words" in str(error)


def test_managers_in_a_conflict_are_named():
    causes = [{"message": 'conflict with "argocd-controller" using apps/v1'}, {"message": 'conflict with "kubectl"'}]
    error = kube._error(409, {"message": "x", "details": {"causes": causes}}, "PATCH /x")
    assert conflicting_managers(error) == "argocd-controller, kubectl"


def test_paths():
    pods = Kind("/api/v1", "pods")
    assert pods.path("a", "b", "status") == "/api/v1/namespaces/a/pods/b/status"
    assert pods.path(None) == "/api/v1/pods"


def test_answers_that_are_no_objects_become_messages():
    assert kube._decode(b"upstream is down") == {"message": "upstream is down"}
    assert kube._decode(json.dumps(["x"]).encode()) == {"message": "['x']"}
