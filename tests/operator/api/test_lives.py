"""Lives that take longer ways: approved late, overtaken, hung, watched from outside; with real controllers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from skill_contract.outcome import Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import PROGRESS_PORT
from tests.operator import raw
from tests.operator.api.place import Kubelet, Place, annotation, condition
from tests.operator.raw import Step

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("operator")]

STEPS_PER_SECOND = 4


class Trainer:
    """A trainer's /progress at a loopback address of its own, as a pod has one."""

    addresses = itertools.count(2)

    def __init__(self) -> None:
        self.ip = f"127.0.83.{next(self.addresses)}"
        self.began = time.time()
        self.hangs = False

    @property
    def step(self) -> int:
        """The truth."""
        return int((time.time() - self.began) * STEPS_PER_SECOND)

    def pod(self) -> raw.Raw:
        """Status of a pod that runs at this address."""
        return raw.running(self.began) | {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}

    async def answer(self, _: web.Request) -> web.Response:
        now = time.time()
        progress = Progress(
            stage=Stage.TRAINING, step=self.step, total=1000, loss=round(1 / (1 + self.step), 3),
            eta_seconds=(1000 - self.step) / STEPS_PER_SECOND, last_checkpoint=self.step // 10 * 10,
            heartbeat=now - 3600 if self.hangs else now,
        )  # fmt: skip
        return web.Response(body=progress.dump_json(), content_type="application/json")


@asynccontextmanager
async def trainer() -> AsyncIterator[Trainer]:
    one = Trainer()
    app = web.Application()
    app.add_routes([web.get("/progress", one.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, one.ip, PROGRESS_PORT).start()
    try:
        yield one
    finally:
        await runner.cleanup()


async def test_progress_is_within_ten_seconds_of_the_truth_and_written_once_in_ten(place: Place, kubelet: Kubelet):
    async with trainer() as truth:
        kubelet.steps["train"] = [truth.pod()]
        await place.update("watched", serving=False)
        await place.until("skillupdates", "watched", _shows(lambda training: training.get("step", 0) > 0))
        versions: set[str] = set()
        for _ in range(22):
            await asyncio.sleep(1)
            seen = await place.get("skillupdates", "watched")
            versions.add(seen["metadata"]["resourceVersion"])
            behind = (truth.step - seen["status"]["training"]["step"]) / STEPS_PER_SECOND
            assert behind < 11, "ten seconds, and the time of a look"
        assert 2 <= len(versions) <= 4, "22 seconds"
        training = seen["status"]["training"]
        assert seen["status"]["progress"] == f"{training['step'] // 10}%"
        assert training["etaSeconds"] == pytest.approx((1000 - training["step"]) / STEPS_PER_SECOND, abs=1)
        assert training["loss"] == pytest.approx(1 / (1 + training["step"]), abs=0.001)
        assert training["lastCheckpointStep"] == training["step"] // 10 * 10
        assert training["pod"].startswith("watched-train-")


def _shows(reached: Callable[[dict[str, Any]], bool]) -> Callable[[raw.Raw], bool]:
    return lambda seen: reached(seen.get("status", {}).get("training") or {})


async def test_trainer_that_stands_still_is_replaced_and_the_reason_shown(place: Place, kubelet: Kubelet):
    async with trainer() as first, trainer() as second:
        first.hangs = True
        kubelet.steps["train"] = [first.pod(), second.pod()]
        await place.update("stuck", serving=False)
        counts = _shows(lambda training: (training.get("attempt"), training.get("restarts")) == (2, 1))
        seen = await place.until("skillupdates", "stuck", counts)
        failure = seen["status"]["failure"]
        assert (failure["reason"], failure["retriable"]) == ("HeartbeatLost", True)
        assert (seen["status"]["training"]["preemptions"], seen["status"]["phase"]) == (0, "Training")
        assert {"HeartbeatLost", "Resumed"} <= await place.reasons("stuck")
        await kubelet.write(seen["status"]["training"]["pod"], kubelet.said("train"))
        seen = await place.phase("stuck", "Succeeded")
        assert "failure" not in seen["status"]


async def test_version_that_was_published_of_the_very_same_is_rolled_out_without_training(
    place: Place, kubelet: Kubelet
):
    kubelet.steps["check"] = [raw.said(raw.adopted())]
    await place.serve()
    await place.update("again")
    update = await place.phase("again", "Succeeded")
    assert condition(update, "Published")["reason"] == "Adopted"
    assert update["status"]["published"]["digest"] == raw.CHILD[1]
    assert update["status"]["evaluation"]["verdict"] == "Passed"
    assert annotation(await place.get("deployments", "support-llm")) == place.candidate
    assert kubelet.seen == ["check", "promote"]
    reasons = await place.reasons("again")
    assert {"Checked", "GatePassed", "VersionPublished", "Promoted"} <= reasons
    assert "TargetMissing" not in reasons, "the target was there, and to be looked at as soon as there is a version"


async def test_update_that_waits_for_approval_lets_the_next_one_pass_and_is_told_that_it_was_overtaken(
    place: Place, kubelet: Kubelet
):
    await place.update("careful", serving=False, gates={"approval": "Manual"})
    await place.phase("careful", "AwaitingApproval")
    await place.update("quick", serving=False)
    await place.phase("quick", "Succeeded")
    overtaken = await place.phase("careful", "Failed")
    assert condition(overtaken, "Stalled")["reason"] == "HeadMoved"
    assert f"{place.namespace}/quick" in condition(overtaken, "Ready")["message"]
    assert await place.step_jobs("careful") == ["check", "train"]


async def test_approval_goes_before_those_that_passed_and_stops_their_training(place: Place, kubelet: Kubelet):
    await place.update("careful", serving=False, gates={"approval": "Manual"})
    await place.phase("careful", "AwaitingApproval")
    kubelet.steps["train"] = []
    await place.update("later", serving=False)
    await place.phase("later", "Training")
    job = await place.until_some("jobs", "sdft.dev/update=later,sdft.dev/step=train")
    await place.patch("skillupdates", "careful", {"spec": {"approved": True}})
    await place.phase("careful", "Succeeded")
    assert condition(await place.phase("later", "Failed"), "Ready")["reason"] == "HeadMoved"
    await place.until_gone("jobs", job)


async def test_counts_go_on_after_a_suspension(place: Place, kubelet: Kubelet):
    preempted = raw.ended(75, raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted").dump_json())
    kubelet.steps["train"] = [preempted, raw.running(), preempted, kubelet.said("train")]
    await place.update("counted", serving=False)
    await place.until("skillupdates", "counted", _shows(lambda training: training.get("attempt") == 2))
    first = await place.until_some("jobs", "sdft.dev/step=train")
    await place.patch("skillupdates", "counted", {"spec": {"suspend": True}})
    await place.until_gone("jobs", first)
    await place.patch("skillupdates", "counted", {"spec": {"suspend": False}})
    seen = await place.phase("counted", "Succeeded")
    counts = {kind: seen["status"]["training"][kind] for kind in ("attempt", "restarts", "preemptions")}
    assert counts == {"attempt": 4, "restarts": 0, "preemptions": 2}


async def test_promotion_outlives_a_store_that_is_away(place: Place, kubelet: Kubelet):
    away = raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "StoreUnavailable", "s3://x does not answer"), 1)
    kubelet.steps["promote"] = [away, kubelet.said("promote")]
    await place.update("patient", serving=False)
    waiting = await place.until(
        "skillupdates", "patient", lambda u: "status" in u and condition(u, "Ready").get("reason") == "StoreUnavailable"
    )
    assert condition(waiting, "Succeeded")["status"] == "Unknown"
    await place.phase("patient", "Succeeded")
    assert "StoreUnavailable" not in str(await place.reasons("patient"))
