"""Updates from beginning to end: Kubernetes' own controllers run the Jobs, the operator's process does the rest."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Result
from tests.operator import raw
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place, condition
from tests.operator.raw import CHILD, PARENT, Step

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("operator")]


async def test_update_is_checked_trained_and_promoted(place: Place, kubelet: Kubelet):
    await place.update("refund", serving=False)
    update = await place.phase("refund", "Succeeded")
    assert kubelet.seen == ["check", "train", "promote"]
    assert await place.step_jobs("refund") == ["check", "promote", "train"]
    status = update["status"]
    assert (status["parent"]["version"], status["published"]["digest"]) == (PARENT[0], CHILD[1])
    assert condition(update, "Ready")["status"] == condition(update, "Succeeded")["status"] == "True"
    assert status["evaluation"]["newSkill"]["gain"] == 0.8
    assert not update["metadata"].get("finalizers")
    told = await place.reasons("refund")
    assert {"Checked", "GatePassed", "VersionPublished", "Promoted"} <= told


async def test_user_s_mistake_fails_without_a_second_try(place: Place, kubelet: Kubelet):
    answer = raw.outcome(Step.CHECK, Result.FAILED, "DataInvalid", "train.jsonl, line 2: no prompt")
    kubelet.steps["check"] = [raw.said(answer, 42)]
    await place.update("broken")
    update = await place.phase("broken", "Failed")
    assert condition(update, "Stalled")["reason"] == condition(update, "Checked")["reason"] == "DataInvalid"
    assert "line 2" in condition(update, "Ready")["message"]
    assert update["status"]["failure"]["exitCode"] == 42
    assert kubelet.seen == ["check"]


async def test_rejected_skill_is_neither_promoted_nor_served(place: Place, kubelet: Kubelet):
    kubelet.steps["train"] = [raw.said(raw.outcome(Step.TRAIN, Result.REJECTED, "SkillForgotten", "0.71 < 0.90"))]
    await place.update("forgetful")
    update = await place.phase("forgetful", "Rejected")
    assert condition(update, "Stalled")["reason"] == "SkillForgotten"
    assert "published" not in update["status"]
    assert kubelet.seen == ["check", "train"]


async def test_out_of_memory_fails_at_once_and_the_failed_pod_stays_for_its_logs(place: Place, kubelet: Kubelet):
    kubelet.steps["train"] = [raw.ended(137, reason="OOMKilled")]
    await place.update("large")
    update = await place.phase("large", "Failed")
    assert condition(update, "Ready")["reason"] == "OutOfMemory"
    job = await place.until_some("jobs", "sdft.dev/step=train", lambda j: j["spec"].get("suspend"))
    pods = await place.list("pods", "sdft.dev/step=train")
    assert [
        pod["status"]["phase"] for pod in pods if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    ][-1] == "Failed"


async def test_preempted_trainer_is_started_again_and_costs_no_restart(place: Place, kubelet: Kubelet):
    preempted = raw.ended(75, raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted").dump_json())
    kubelet.steps["train"] = [preempted, kubelet.said("train")]
    await place.update("cheap", serving=False)
    update = await place.phase("cheap", "Succeeded")
    assert kubelet.seen.count("train") == 2
    assert (update["status"]["training"]["preemptions"], update["status"]["training"]["restarts"]) == (1, 0)
    assert "Preempted" in await place.reasons("cheap")


async def test_suspended_update_gives_its_gpus_back_and_goes_on_later(place: Place, kubelet: Kubelet):
    kubelet.steps["train"] = []
    await place.update("pausing", serving=False)
    await place.phase("pausing", "Training")
    first = await place.until_some("jobs", "sdft.dev/step=train")
    await place.until_some("pods", "sdft.dev/step=train")
    await place.patch("skillupdates", "pausing", {"spec": {"suspend": True}})
    update = await place.phase("pausing", "Suspended")
    assert condition(update, "Suspended")["status"] == "True"
    await place.until_gone("jobs", first)
    assert await place.list("pods", "sdft.dev/step=train") == []
    kubelet.steps["train"] = [kubelet.said("train")]
    resumed = {"suspend": False, "training": {"template": {"nodeSelector": {"pool": "b"}}}}
    await place.patch("skillupdates", "pausing", {"spec": resumed})
    await place.phase("pausing", "Succeeded")
    (job,) = await place.list("jobs", "sdft.dev/step=train")
    assert job["metadata"]["uid"] != first["metadata"]["uid"]
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "b"}


async def test_updates_of_one_model_take_turns(place: Place, kubelet: Kubelet):
    next_parent = kubelet.said("check", version=CHILD[0], digest=CHILD[1])
    kubelet.steps |= {"train": [], "check": [kubelet.said("check"), next_parent]}
    await place.update("first", serving=False)
    await place.phase("first", "Training")
    await place.update("second", serving=False)
    update = await place.phase("second", "Queued")
    assert f"{place.namespace}/first" in condition(update, "Queued")["message"]
    assert await place.step_jobs("second") == []
    await kubelet.finish("train")
    await place.phase("first", "Succeeded")
    update = await place.phase("second", "Succeeded")
    assert not condition(update, "Queued")


async def test_deleting_an_update_in_training_takes_its_jobs_along(place: Place, kubelet: Kubelet):
    kubelet.steps["train"] = []
    unwanted = await place.update("unwanted", serving=False)
    await place.phase("unwanted", "Training")
    job = await place.until_some("jobs", "sdft.dev/step=train")
    await place.delete("skillupdates", "unwanted")
    await place.until_gone("skillupdates", unwanted)
    await place.until_gone("jobs", job)


async def test_recreated_update_does_not_meet_its_predecessor(place: Place, kubelet: Kubelet):
    answer = raw.outcome(Step.CHECK, Result.FAILED, "DataInvalid")
    kubelet.steps["check"] = [raw.said(answer, 42), kubelet.said("check")]
    first = await place.update("again", serving=False)
    await place.phase("again", "Failed")
    await place.delete("skillupdates", "again")
    await place.until_gone("skillupdates", first)
    await place.update("again", serving=False)
    await place.phase("again", "Succeeded")


async def test_job_name_that_is_taken_stalls_and_goes_on_when_it_is_free(
    place: Place, kubelet: Kubelet, operator: Operator
):
    operator.kill()
    created = await place.update("taken", serving=False)
    name = raw_job_name(created)
    job = {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}},
        "suspend": True,
    }
    foreign = await place.create("jobs", {"metadata": {"name": name}, "spec": job})
    operator.start()
    stalled = await place.until("skillupdates", "taken", lambda u: condition(u, "Stalled") if "status" in u else None)
    assert condition(stalled, "Stalled")["reason"] == "NameConflict"
    assert name in condition(stalled, "Stalled")["message"]
    await place.delete("jobs", name)
    await place.until_gone("jobs", foreign)
    await place.patch("skillupdates", "taken", {"metadata": {"annotations": {"nudge": "1"}}})
    await place.phase("taken", "Succeeded")


def raw_job_name(update: raw.Raw) -> str:
    from skill_operator.names import job_name

    return job_name(update["metadata"]["name"], update["metadata"]["uid"], "check")
