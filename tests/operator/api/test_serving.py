"""Rollouts of a real Deployment by its own controllers; only what containers do is played."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Result
from skill_contract.step import PromoteConfig
from tests.operator import raw
from tests.operator.api.place import Kubelet, Place, annotation, at_rest, condition, serves_what_it_is_told, told
from tests.operator.raw import PARENT, Raw, Step

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("operator")]


def bad_on(weights: str, status: Raw):
    """A pod that is bad with this version and good with any other."""

    def play(pod: Raw) -> Raw:
        return status if told(pod) == weights else serves_what_it_is_told(pod)

    return play


async def settled(place: Place) -> Raw:
    """Returns the Deployment once it is at rest."""
    return await place.until("deployments", "support-llm", at_rest)


async def asked(place: Place) -> PromoteConfig:
    """Returns what the promote step was told."""
    (job,) = await place.list("jobs", "sdft.dev/step=promote")
    values = {v["name"]: v.get("value") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    return PromoteConfig.parse_json(values["SKILL_CONFIG"])


async def test_candidate_is_rolled_out_proved_and_promoted(place: Place, kubelet: Kubelet):
    await place.serve()
    await place.update("served")
    update = await place.phase("served", "Succeeded")
    assert update["status"]["rollout"]["podsVerified"] == "2/2"
    assert annotation(await settled(place)) == place.candidate
    config = await asked(place)
    pods = await place.list("pods", "app=support-llm")
    assert {pod.name for pod in config.pods} == {pod["metadata"]["name"] for pod in pods}
    update = await place.until("skillupdates", "served", lambda u: not u["metadata"].get("finalizers"))
    assert {"RolloutStarted", "PodVerified", "Promoted"} <= await place.reasons("served")


async def test_pods_whose_readiness_probe_speaks_tls_are_asked_so(place: Place, kubelet: Kubelet):
    engine = {
        "name": "server", "image": "engine", "ports": [{"name": "api", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "api", "scheme": "HTTPS"}},
    }  # fmt: skip
    await place.serve()
    await place.patch("deployments", "support-llm", {"spec": {"template": {"spec": {"containers": [engine]}}}})
    await settled(place)
    await place.update("private")
    await place.phase("private", "Succeeded")
    assert {pod.url for pod in (await asked(place)).pods} == {"https://127.0.0.1:8000"}


async def test_operator_owns_two_annotations_of_the_deployment_and_nothing_else(place: Place, kubelet: Kubelet):
    await place.serve()
    await place.update("modest")
    await place.phase("modest", "Succeeded")
    deployment = await place.get("deployments", "support-llm")
    (owned,) = [e for e in deployment["metadata"]["managedFields"] if e["manager"] == "skill-operator"]
    annotations = {"f:sdft.dev/weights": {}, "f:sdft.dev/version": {}}
    fields = {"f:spec": {"f:template": {"f:metadata": {"f:annotations": annotations}}}}
    assert (owned["operation"], owned["fieldsV1"]) == ("Apply", fields)


@pytest.mark.parametrize("before", [False, True], ids=["first version", "later version"])
async def test_version_that_cannot_be_fetched_is_rolled_back(place: Place, kubelet: Kubelet, *, before: bool):
    previous = f"s3://{place.namespace}/llm/versions/{PARENT[0]}@{PARENT[1]}" if before else ""
    broken = raw.fetch_failed("DigestMismatch", "sha256 of model.safetensors differs", "model.safetensors")
    status = raw.serving_status(broken, fetch_code=1, ready=False)
    kubelet.serving = bad_on(place.candidate, status)
    await place.serve(weights=previous)
    await place.update("altered")
    update = await place.phase("altered", "RolledBack")
    assert condition(update, "Stalled")["reason"] == "DigestMismatch"
    assert "model.safetensors" in condition(update, "Stalled")["message"]
    assert annotation(await settled(place)) == previous
    assert "promote" not in kubelet.seen
    await place.until("skillupdates", "altered", lambda u: not u["metadata"].get("finalizers"))


async def test_pods_that_answer_like_other_weights_are_rolled_back(place: Place, kubelet: Kubelet):
    kubelet.steps["promote"] = [raw.said(raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch", "A is not B"))]
    await place.serve()
    await place.update("stale")
    update = await place.phase("stale", "RolledBack")
    assert condition(update, "Stalled")["reason"] == "OutputMismatch"
    assert annotation(await settled(place)) == ""


async def test_missing_target_is_waited_for(place: Place, kubelet: Kubelet):
    await place.update("early")
    update = await place.until("skillupdates", "early", lambda u: condition(u, "Stalled") if "status" in u else None)
    assert condition(update, "Stalled")["reason"] == "TargetMissing"
    await place.serve()
    await place.phase("early", "Succeeded")


async def test_target_without_the_fetch_container_stalls_with_the_lines_to_paste(place: Place, kubelet: Kubelet):
    await place.serve(wired=False)
    await place.update("loose")
    update = await place.until("skillupdates", "loose", lambda u: condition(u, "NotWired") if "status" in u else None)
    assert "fieldRef" in condition(update, "NotWired")["message"]
    template = raw.deployment()["spec"]["template"]
    await place.patch("deployments", "support-llm", {"spec": {"template": template}})
    await place.phase("loose", "Succeeded")


async def test_annotation_that_git_owns_is_not_taken(place: Place, kubelet: Kubelet):
    await place.serve()
    wanted = {"metadata": {"annotations": {"sdft.dev/weights": "s3://git/says@sha256:0"}}}
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "support-llm"}}
    await place.apply("deployments", "support-llm", document | {"spec": {"template": wanted}}, "argocd-controller")
    await settled(place)
    await place.update("greedy")
    update = await place.phase("greedy", "Failed")
    assert condition(update, "Stalled")["reason"] == "GitOpsConflict"
    assert "argocd-controller" in condition(update, "GitOpsConflict")["message"]
    assert annotation(await place.get("deployments", "support-llm")) == "s3://git/says@sha256:0"


async def test_update_that_is_deleted_in_its_rollout_first_goes_back(place: Place, kubelet: Kubelet):
    kubelet.steps["promote"] = []
    await place.serve()
    update = await place.update("regretted")
    await place.until_some("pods", "sdft.dev/step=promote")
    await place.delete("skillupdates", "regretted")
    await place.until_gone("skillupdates", update)
    assert annotation(await settled(place)) == ""


async def test_promoted_update_can_be_deleted_without_a_change_of_what_is_served(place: Place, kubelet: Kubelet):
    await place.serve()
    update = await place.update("done")
    await place.phase("done", "Succeeded")
    await place.until("skillupdates", "done", lambda u: not u["metadata"].get("finalizers"))
    await place.delete("skillupdates", "done")
    await place.until_gone("skillupdates", update)
    assert annotation(await settled(place)) == place.candidate


async def test_finished_update_is_reverted_on_demand(place: Place, kubelet: Kubelet):
    await place.serve()
    await place.update("undone")
    await place.phase("undone", "Succeeded")
    await place.patch("skillupdates", "undone", {"spec": {"revert": True}})
    update = await place.phase("undone", "Reverted")
    assert condition(update, "Ready")["reason"] == "Reverted"
    assert annotation(await settled(place)) == ""
    assert kubelet.seen[-1] == "revert"
