"""What may change after creation, and what is refused with the way out."""

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.crd import SPEC, example, get, leaves, put

pytestmark = pytest.mark.api

WAY_OUT = "immutable: create a new SkillUpdate"
ONLY_ONE_VALUE = {"serving.strategy"}
TEMPLATE = "training.template"
WHILE_SUSPENDED = {"training.gracePeriodSeconds"}

# A valid other value for each immutable field of full.yaml.
OTHER: dict[str, Any] = {
    "model.uri": "s3://models/other",
    "model.base": "",
    "model.parent": "",
    "skill.name": "refunds",
    "skill.description": "Something else",
    "data.train": "s3://skills/refund/train-2.jsonl",
    "data.heldOut.uri": "s3://skills/refund/test-2.jsonl",
    "data.heldOut.grader": "exact",
    "data.retention": [],
    "data.rehearsal.uris": ["s3://skills/returns/train-2.jsonl"],
    "data.rehearsal.share": "0.25",
    "storage.secretRef.name": "other",
    "storage.endpoint": "https://s3.example.com",
    "storage.serviceAccountName": "",
    "method.type": "SFT",
    "method.sdft.divergence": "JSD",
    "method.sdft.teacher.weights": "Frozen",
    "method.sdft.teacher.emaRate": "0.02",
    "method.sdft.prompt.template": "Paper",
    "method.sdft.prompt.text": "{question} So: {demonstration}",
    "method.sdft.prompt.demonstration": "Shuffled",
    "method.sdft.skipTokens": 0,
    "method.optimizer.learningRate": "2e-5",
    "method.optimizer.schedule": "Constant",
    "method.optimizer.warmupSteps": 0,
    "method.optimizer.maxGradNorm": "0.5",
    "method.batchSize": 16,
    "method.epochs": 3,
    "method.steps": 100,
    "method.rollout.maxNewTokens": 256,
    "method.rollout.temperature": "0.7",
    "method.chatTemplateArguments": {"enable_thinking": True},
    "method.seed": 18,
    "training.nodes": 2,
    "training.gpusPerNode": 4,
    "training.gpuResource": "amd.com/gpu",
    "training.resources.requests": {"cpu": 8},
    "training.resources.limits": {"memory": "128Gi"},
    "training.checkpoint.everySteps": 10,
    "training.checkpoint.keep": 3,
    "training.failurePolicy.maxRestarts": 4,
    "training.failurePolicy.heartbeatTimeoutSeconds": 600,
    "gates.inContextGain.mode": "Skip",
    "gates.inContextGain.minGain": "0.01",
    "gates.newSkill.minGain": "0.01",
    "gates.newSkill.minScore": "0.1",
    "gates.retention.maxDrop": "0.5",
    "gates.retention.minNormalized": "0.1",
    "gates.monitors.mode": "Warn",
    "gates.monitors.everySteps": 50,
    "gates.monitors.questions": 16,
    "gates.monitors.ignore": [],
    "gates.onInconclusive": "Accept",
    "gates.approval": "Automatic",
    "serving.targetRef.apiVersion": "v1",
    "serving.targetRef.kind": "StatefulSet",
    "serving.targetRef.name": "other",
    "serving.container": "other",
    "serving.port": 8080,
    "serving.servedModelName": "",
    "serving.soakSeconds": 0,
    "serving.progressDeadlineSeconds": 600,
}
FREE = {
    "model.keepVersions": 5,
    "suspend": True,
    "approved": True,
    "revert": True,
    "serving.rollback": "Manual",
    "serving.analysis.samples": "$pods",
    "serving.analysis.minSamples": 1,
    "serving.analysis.metrics": [{"name": "x", "query": "$pods", "max": "1"}],
    "serving.analysis.canarySeconds": 60,
    "serving.analysis.warmupSeconds": 0,
    "serving.analysis.intervalSeconds": 10,
    "serving.analysis.failureLimit": 1,
    "serving.analysis.onInconclusive": "Promote",
    "training.activeDeadlineSeconds": 90000,
}
UNION = {"method.adaptation.type", "method.adaptation.lora.rank"}


def refusal(response) -> str:
    assert response.status_code == 422, response.text
    return response.json()["message"]


def one(path: str, value: Any) -> dict[str, Any]:
    return put({}, f"spec.{path}", value)


@pytest.fixture
def name(api: Api) -> str:
    return api.created(example("full"))["metadata"]["name"]


def test_every_field_is_tried():
    """A new field of the schema must be put into one of the tables."""
    tried = OTHER.keys() | FREE.keys() | UNION | ONLY_ONE_VALUE | WHILE_SUSPENDED
    missing = {path for path in leaves(SPEC) if not path.startswith((TEMPLATE, "method.adaptation.lora"))} - tried
    assert not missing


@pytest.mark.parametrize(("path", "value"), OTHER.items(), ids=list(OTHER))
def test_an_immutable_field_stays(api: Api, name, path, value):
    message = refusal(api.change(name, one(path, value)))
    field = next(line for line in message.split("spec.") if WAY_OUT in line)
    assert f"spec.{path}".startswith("spec." + field.split(":")[0]) or path == "method.steps"


@pytest.mark.parametrize(("path", "value"), FREE.items(), ids=list(FREE))
def test_a_free_field_changes_alone(api: Api, name, path, value):
    response = api.change(name, one(path, value))
    assert response.status_code == 200, response.text
    assert get(response.json()["spec"], path) == value


def test_the_deadline_only_grows(api: Api, name):
    message = refusal(api.change(name, one("training.activeDeadlineSeconds", 86399)))
    assert "training.activeDeadlineSeconds" in message
    assert "may only grow: write at least the value before" in message


def test_where_and_how_pods_run_changes_only_while_suspended(api: Api, name):
    deep = "training.template.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    for path, value in [("training.template.nodeSelector.zone", "b"), (deep, []), ("training.template.volumes", []),
                        ("training.gracePeriodSeconds", 1800)]:  # fmt: skip
        change = one(path, value)
        assert "write suspend: true together with the change" in refusal(api.change(name, change))
        assert api.change(name, put(change, "spec.suspend", True)).status_code == 200
        assert get(api.change(name, {"spec": {"suspend": False}}).json()["spec"], path) == value


def test_lora_settings_stay(api: Api):
    name = api.created(example("lora"))["metadata"]["name"]
    for change in ({"lora": {"rank": 8}}, {"lora": {"targetModules": ["all-linear"]}}, {"type": "Full", "lora": None}):
        message = refusal(api.change(name, {"spec": {"method": {"adaptation": change}}}))
        assert f'spec.method.adaptation: Invalid value: "object": {WAY_OUT}' in message


@pytest.mark.parametrize(
    ("base", "path", "value"),
    [
        ("full", "serving", None),
        ("full", "storage.secretRef", None),
        ("lora", "method.steps", None),
        ("publish-only", "serving", {"targetRef": {"name": "support-llm"}}),
        ("lora", "storage.secretRef", {"name": "s3-creds"}),
        ("publish-only", "method.steps", 10),
    ],
)
def test_optional_parts_are_neither_added_nor_removed(api: Api, base, path, value):
    name = api.created(example(base))["metadata"]["name"]
    assert f"{WAY_OUT} ({path.split('.')[-1]} can be neither added nor removed" in refusal(
        api.change(name, one(path, value))
    )


@pytest.mark.parametrize(("base", "rate"), [("lora", "1e-4"), ("full", None)])
def test_a_learning_rate_is_neither_written_nor_left_to_the_adaptation_later(api: Api, base, rate):
    name = api.created(example(base))["metadata"]["name"]
    message = refusal(api.change(name, one("method.optimizer.learningRate", rate)))
    assert f'spec.method.optimizer: Invalid value: "object": {WAY_OUT}' in message


def test_applying_the_same_file_again_changes_nothing(api: Api):
    first = api.created(example("minimal"))
    again = api.change("refund-tool", {"spec": example("minimal")["spec"]}).json()
    assert again["metadata"]["generation"] == first["metadata"]["generation"] == 1


STATUS_SEEN: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Training",
    "progress": "46%",
    "startTime": "2026-11-25T12:00:00Z",
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Progressing",
            "message": "Step 420 of 900",
            "lastTransitionTime": "2026-11-25T12:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "parent": {"version": "000042-3f9c1a7be012", "digest": "sha256:" + "3" * 64},
    "training": {"step": 420, "totalSteps": 900, "etaSeconds": 2130, "loss": 1.25, "attempt": 2, "restarts": 1},
    "evaluation": {"newSkill": {"suite": "refund-tool", "before": 0.4, "after": 0.58, "gain": 0.18, "n": 100}},
    "rollout": {"podsVerified": "2/3", "startedAt": "2026-11-25T12:30:00Z"},
    "failure": {"reason": "OutOfMemory", "retriable": False, "exitCode": 137},
}


def test_status_is_written_through_its_own_door(api: Api, name):
    both = {"spec": {"suspend": True}, "status": STATUS_SEEN}
    written = api.change(name, both, part="status")
    assert written.status_code == 200, written.text
    assert written.json()["status"] == STATUS_SEEN
    assert written.json()["spec"]["suspend"] is False
    through_the_object = api.change(name, {"status": {"phase": "Succeeded"}}).json()
    assert through_the_object["status"]["phase"] == "Training"
    assert through_the_object["metadata"]["generation"] == 1


def test_a_status_given_at_creation_is_dropped(api: Api):
    assert api.created({**example("minimal"), "status": STATUS_SEEN})["status"] == {"observedGeneration": -1}


def test_a_status_that_the_schema_does_not_know_is_refused(api: Api, name):
    assert "unknown field" in api.change(name, {"status": {"fase": "x"}}, part="status").json()["message"]
    assert "Unsupported value" in refusal(
        api.change(
            name, {"status": {"conditions": [{**STATUS_SEEN["conditions"][0], "status": "Maybe"}]}}, part="status"
        )
    )
    twice = {"status": {"conditions": STATUS_SEEN["conditions"] * 2}}
    assert "Duplicate value" in refusal(api.change(name, twice, part="status"))
