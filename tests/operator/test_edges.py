"""Settings, command line, metrics, health, trainer client and API errors: the edges, without a cluster."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import aiohttp
import pytest
from aiohttp import web

from skill_contract.adapters import REPORT_PATH, AdapterReport, Told
from skill_contract.progress import Progress, Stage
from skill_operator import kube
from skill_operator.agent_client import AgentClient
from skill_operator.cli import main
from skill_operator.health import serve_health
from skill_operator.kube import Kind, conflicting_managers
from skill_operator.observed import ServingPod
from skill_operator.settings import SettingsError, read_settings
from skill_operator.trainer_client import TrainerClient, by_our_clock

IMAGES = {"SKILL_TRAINER_IMAGE": "t:1", "SKILL_STORE_IMAGE": "s:1"}
POD = ServingPod(
    name="p", uid="u", ip="127.0.0.1", weights="", ready=True, deleting=False, fetch=None, fetch_ended=None,
    created=0.0, blocked="", engine_restarts=0, engine_out_of_memory=False, engine_last_exit=None, engine_message="",
    unschedulable="",
)  # fmt: skip
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
    async with trainer(unused_port, web.Response(text=body, status=status)) as client:
        seen = await client.progress("127.0.0.1")
    assert (seen is not None) == readable


@pytest.mark.parametrize("ahead", [-7200, 0, 7200], ids=["behind", "right", "ahead"])
async def test_heartbeat_is_told_by_our_clock_whatever_the_trainer_s_says(unused_port, ahead: int):
    theirs = time.time() + ahead
    said = Progress(stage=Stage.TRAINING, step=3, heartbeat=theirs - 100)
    answer = web.Response(text=said.dump_json(), headers={"Date": formatdate(theirs, usegmt=True)})
    async with trainer(unused_port, answer) as client:
        seen = await client.progress("127.0.0.1")
    assert seen is not None
    assert time.time() - seen.heartbeat == pytest.approx(100, abs=10)


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 99 Nov 2026 21:00:00 GMT"])
def test_answer_without_a_date_is_taken_as_it_is(date: str):
    said = Progress(stage=Stage.TRAINING, heartbeat=1.0)
    assert by_our_clock(said, date, 5000.0) == said


async def test_an_answer_of_a_pod_that_comes_in_pieces_is_read_whole(unused_port):
    said = AdapterReport(told=Told(weights="s3://models/llm/versions/v@d"), ready=True)
    text = said.dump_json().encode()

    async def in_pieces(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for start in range(0, len(text), 50):
            await answer.write(text[start : start + 50])
            await asyncio.sleep(0.01)
        return answer

    async with pod(unused_port, REPORT_PATH, in_pieces), AgentClient() as agents:
        reports = await agents.reports([POD], unused_port)
    assert reports == {POD.name: said}


@asynccontextmanager
async def trainer(port: int, answer: web.Response) -> AsyncIterator[TrainerClient]:
    """A client of a trainer that answers this, once."""

    async def progress(_: web.Request) -> web.Response:
        return answer

    async with pod(port, "/progress", progress), TrainerClient(port) as client:
        yield client


@asynccontextmanager
async def pod(
    port: int, path: str, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[None]:
    """Something that answers at a path."""
    app = web.Application()
    app.add_routes([web.get(path, answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


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
