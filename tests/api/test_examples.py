"""Every good example is taken, every bad one refused with words that say what to write instead."""

import re
from typing import Any

import pytest
import yaml

from tests.api.conftest import Api
from tests.api.crd import REMOVED, ROOT, SPEC, example, get, put, update_files, updates_in, walk

pytestmark = pytest.mark.api

DATA = "write a data file (.jsonl, .jsonl.gz or .parquet) as s3://bucket/key or file:///path, such as s3://"
SHARE = 'write a share as a quoted decimal from 0 to 1, such as "0.05"'
POSITIVE = "write a quoted decimal above 0"
SUITE = {"name": "qa", "uri": "s3://skills/qa.jsonl"}
TEMPLATE = "spec.training.template"
NAME = 'write at most 40 characters of a-z, 0-9 and "-", starting with a letter'

# Where in full.yaml, what is written there, and the words that the refusal must have.
BAD: list[tuple[str, Any, str]] = [
    ("metadata.name", "a" * 41, NAME),
    ("metadata.name", "1st-update", NAME),
    ("metadata.name", "refund.tool", NAME),
    ("metadata.name", "Refund", NAME),
    ("spec", REMOVED, "spec: Required value"),
    ("spec.model", REMOVED, "spec.model: Required value"),
    ("spec.model.uri", REMOVED, "spec.model.uri: Required value"),
    ("spec.model.uri", "models/support-llm", "write a model repository as s3://bucket/prefix or file:///folder"),
    (
        "spec.model.uri",
        "https://models/support-llm",
        "write a model repository as s3://bucket/prefix or file:///folder",
    ),
    ("spec.model.uri", "s3://", "write a model repository as s3://bucket/prefix or file:///folder"),
    ("spec.model.uri", "file://models", "write a model repository as s3://bucket/prefix or file:///folder"),
    ("spec.model.uri", "s3://" + "m" * 1024, "may not be more than 1024 bytes"),
    (
        "spec.model.base",
        "HuggingFaceTB/SmolLM2-135M",
        "write the base model's directory as s3://bucket/prefix or file:///",
    ),
    ("spec.model.parent", "000042-3f9c1a7be012", 'write the parent\'s digest as "sha256:" and 64 hexadecimal digits'),
    ("spec.model.parent", "sha256:" + "F" * 64, 'write the parent\'s digest as "sha256:" and 64 hexadecimal digits'),
    ("spec.skill", REMOVED, "spec.skill: Required value"),
    ("spec.skill.name", REMOVED, "spec.skill.name: Required value"),
    ("spec.skill.name", "Refund Tool", 'write the name of a skill with a-z, 0-9 and "-" only, such as refund-tool'),
    ("spec.skill.name", "../../head", 'write the name of a skill with a-z, 0-9 and "-" only, such as refund-tool'),
    ("spec.data.train", REMOVED, "spec.data.train: Required value"),
    ("spec.data.train", "train.jsonl", DATA),
    ("spec.data.train", "s3://skills", DATA),
    ("spec.data.train", "s3://skills/refund/", DATA),
    ("spec.data.train", "s3://skills/refund/train.csv", DATA),
    ("spec.data.train", "s3://skills/refund/.jsonl", DATA),
    ("spec.data.train", ["s3://skills/a.jsonl"], "spec.data.train in body must be of type string"),
    ("spec.data.heldOut", REMOVED, "spec.data.heldOut: Required value"),
    ("spec.data.heldOut", "s3://skills/test.jsonl", "spec.data.heldOut in body must be of type object"),
    ("spec.data.heldOut.uri", "/data/test.jsonl", DATA),
    ("spec.data.heldOut.grader", "bleu", 'supported values: "exact", "contains", "regex", "choice", "number", "json"'),
    ("spec.data.retention", [SUITE, SUITE], "two retention suites have the same name: give each its own"),
    ("spec.data.retention", [{**SUITE, "name": "refund-tool"}], "has the new skill's own name: rename the suite"),
    ("spec.data.retention", [{**SUITE, "name": "QA"}], 'write the name of a suite with a-z, 0-9 and "-" only'),
    ("spec.data.retention", [{**SUITE, "uri": "qa.jsonl"}], DATA),
    ("spec.data.retention", [{"uri": "s3://skills/qa.jsonl"}], "spec.data.retention[0].name: Required value"),
    ("spec.data.retention", [{**SUITE, "name": f"qa-{n}"} for n in range(33)], "must have at most 32 items"),
    ("spec.storage.secretRef", "s3-creds", "spec.storage.secretRef in body must be of type object"),
    ("spec.storage.secretRef", {}, "spec.storage.secretRef.name: Required value"),
    ("spec.storage.secretRef.name", "s3_creds", "write the name of a Secret of this namespace, such as s3-creds"),
    ("spec.storage.secretRef.namespace", "other", 'unknown field "spec.storage.secretRef.namespace"'),
    ("spec.storage.endpoint", "s3.example", "write the store's address as http://host:port or https://host"),
    ("spec.storage.serviceAccountName", "a/b", "write the name of a ServiceAccount of this namespace"),
    ("spec.method.type", "RLHF", 'supported values: "SDFT", "SFT"'),
    ("spec.method", {"type": "SFT", "sdft": {"skipTokens": 4}}, "sdft has no effect with type: SFT: remove sdft"),
    ("spec.method", {"type": "SFT", "sdft": {"divergence": "JSD"}}, "or write type: SDFT"),
    ("spec.method", {"type": "SFT", "sdft": {"teacher": {"emaRate": "0.1"}}}, "or write type: SDFT"),
    ("spec.method", {"type": "SFT", "sdft": {"teacher": {"weights": "Frozen"}}}, "or write type: SDFT"),
    ("spec.method", {"type": "SFT", "sdft": {"prompt": {"template": "Paper"}}}, "or write type: SDFT"),
    ("spec.method.sdft.divergence", "forward", 'supported values: "ForwardKL", "ReverseKL", "JSD"'),
    ("spec.method.sdft.teacher.weights", "Student", 'supported values: "EMA", "Frozen"'),
    ("spec.method.sdft.teacher.emaRate", 0.01, "emaRate in body must be of type string"),
    ("spec.method.sdft.teacher.emaRate", "0", "write a quoted decimal above 0 and at most 1"),
    ("spec.method.sdft.prompt.template", "Mine", 'supported values: "Default", "Paper", "Own"'),
    ("spec.method.sdft.prompt.template", "Own", "write template: Own together with text"),
    ("spec.method.sdft.prompt.text", "{question} {demonstration}", "with other templates remove text"),
    (
        "spec.method.sdft.prompt",
        {"template": "Own", "text": "{question}"},
        "write {question} and {demonstration} where",
    ),
    ("spec.method.sdft.prompt", {"template": "Own", "text": f"{{question}}{{demonstration}}{8193 * 'x'}"}, "Too long"),
    ("spec.method.sdft.skipTokens", -1, "should be greater than or equal to 0"),
    ("spec.method.adaptation", {"type": "LoRA"}, "write type: LoRA together with lora: {}"),
    ("spec.method.adaptation", {"lora": {"rank": 8}}, "with type: Full, remove lora"),
    ("spec.method.adaptation", {"type": "LoRA", "lora": {"targetModules": []}}, "should have at least 1 items"),
    ("spec.method.optimizer.learningRate", "1e-5 per step", POSITIVE),
    ("spec.method.optimizer.learningRate", "-1e-5", POSITIVE),
    ("spec.method.optimizer.learningRate", "1e999", POSITIVE),
    ("spec.method.optimizer.learningRate", "NaN", POSITIVE),
    ("spec.method.optimizer.maxGradNorm", "0.0", POSITIVE),
    ("spec.method.optimizer.schedule", "linear", 'supported values: "Cosine", "Constant"'),
    ("spec.method.batchSize", 0, "should be greater than or equal to 1"),
    ("spec.method.batchSize", "32", "spec.method.batchSize in body must be of type integer"),
    ("spec.method.epochs", 1.5, "spec.method.epochs in body must be of type integer"),
    ("spec.method.rollout.temperature", "0", POSITIVE),
    ("spec.method.learningRate", "1e-5", 'unknown field "spec.method.learningRate"'),
    ("spec.training.nodes", 0, "should be greater than or equal to 1"),
    ("spec.training.gpusPerNode", -1, "should be greater than or equal to 0"),
    ("spec.training.gpuResource", "gpu", "domain/name, such as nvidia.com/gpu or amd.com/gpu"),
    ("spec.training.resources", {"limits": {"nvidia.com/gpu": 8}}, "write their number as training.gpusPerNode"),
    ("spec.training.resources", {"requests": {"nvidia.com/gpu": 8}}, "write their number as training.gpusPerNode"),
    ("spec.training.resources", {"limits": {"memory": "16 GB"}}, "write a quantity such as 500m, 2 or 16Gi"),
    (f"{TEMPLATE}.labels", {"sdft.dev/step": "x"}, "belong to the operator: remove them, or use a key of your own"),
    (f"{TEMPLATE}.labels", {"app.kubernetes.io/name": "x"}, "belong to the operator: remove them, or use a key of"),
    (f"{TEMPLATE}.annotations", {"sdft.dev/weights": "x"}, "belong to the operator: remove them, or use a key of"),
    (f"{TEMPLATE}.env", [{"name": "SKILL_CONFIG", "value": "{}"}], "SKILL_ belong to the operator: remove them"),
    (f"{TEMPLATE}.env", [{"name": "A", "value": "a", "valueFrom": {}}], "write either value or valueFrom"),
    (f"{TEMPLATE}.imagePullPolicy", "Sometimes", 'supported values: "Always", "IfNotPresent", "Never"'),
    (f"{TEMPLATE}.hostNetwork", True, 'unknown field "spec.training.template.hostNetwork"'),
    ("spec.training.failurePolicy.heartbeatTimeoutSeconds", 5, "should be greater than or equal to 30"),
    ("spec.training.activeDeadlineSeconds", "1h", "activeDeadlineSeconds in body must be of type integer"),
    ("spec.gates.inContextGain.mode", False, "spec.gates.inContextGain.mode in body must be of type string"),
    ("spec.gates.inContextGain.mode", "Off", 'supported values: "Enforce", "Warn", "Skip"'),
    ("spec.gates.newSkill.minGain", "5%", SHARE),
    ("spec.gates.newSkill.minGain", ".05", SHARE),
    ("spec.gates.newSkill.minScore", "70", SHARE),
    ("spec.gates.retention.maxDrop", "-0.02", SHARE),
    ("spec.gates.retention.minNormalized", 0.9, "minNormalized in body must be of type string"),
    ("spec.gates.onInconclusive", "Retry", 'supported values: "Reject", "Accept"'),
    ("spec.gates.approval", "Auto", 'supported values: "Automatic", "Manual"'),
    ("spec.serving.targetRef", REMOVED, "spec.serving.targetRef: Required value"),
    (
        "spec.serving.targetRef.kind",
        "DaemonSet",
        'supported values: "Deployment", "StatefulSet", "LeaderWorkerSet", "Rollout"',
    ),
    ("spec.serving.targetRef.apiVersion", "v1", "write apiVersion: apps/v1 for a Deployment"),
    ("spec.serving.targetRef.kind", "LeaderWorkerSet", "write apiVersion: leaderworkerset.x-k8s.io/v1 for a Leader"),
    ("spec.serving.targetRef.kind", "Rollout", "write apiVersion: argoproj.io/v1alpha1 for a Rollout"),
    ("spec.serving.targetRef.kind", "InferenceService", "write apiVersion: serving.kserve.io/v1beta1 for an Inference"),
    ("spec.serving.targetRef.name", "support_llm", "write the name of a workload of this namespace"),
    ("spec.serving.container", "Server", "write the name of a container of the target, such as server"),
    ("spec.serving.port", 70000, "should be less than or equal to 65535"),
    ("spec.serving.strategy", "Canary", 'supported values: "Rolling", "Adapter"'),
    ("spec.serving.strategy", "Adapter", "strategy: Adapter needs an adapter"),
    ("spec.serving.soakSeconds", "2m", "spec.serving.soakSeconds in body must be of type integer"),
    ("spec.serving.progressDeadlineSeconds", 10, "should be greater than or equal to 60"),
    ("spec.serving.rollback", "Never", 'supported values: "Automatic", "Manual"'),
    ("spec.suspend", "yes", "spec.suspend in body must be of type boolean"),
    ("spec.suspended", True, 'unknown field "spec.suspended"'),
]


@pytest.mark.parametrize("path", update_files(), ids=lambda path: path.stem)
def test_a_good_example_is_taken(judge: Api, path):
    for update in updates_in(path):
        update["metadata"].pop("namespace", None)
        judge.created(update)


def test_the_updates_in_the_documentation_are_taken(judge: Api):
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    updates = [update for page in pages for update in updates_shown(page.read_text())]
    assert updates
    for update in updates:
        judge.created(update)


def test_the_examples_use_every_field():
    written = {path for file in update_files() for update in updates_in(file) for path in paths(update["spec"])}
    assert {path for path, _ in walk(SPEC)} - written == {
        "training.template.tolerations[].value",
        "training.template.tolerations[].tolerationSeconds",
        "training.template.env[].valueFrom",
        "training.template.volumeMounts[].subPath",
    }


@pytest.mark.parametrize(("path", "value", "words"), BAD, ids=[f"{n:02d}-{path}" for n, (path, _, _) in enumerate(BAD)])
def test_a_bad_example_is_refused_with_the_way_out(judge: Api, path, value, words):
    response = judge.create(put(example("full"), path, value))
    assert response.status_code in {400, 422}, f"taken: {path} = {value}"
    assert words in response.json()["message"]


def test_a_revert_without_serving_is_refused(judge: Api):
    response = judge.create(put(example("publish-only"), "spec.revert", True))
    assert "revert needs spec.serving" in response.json()["message"]
    assert "so write revert: false" in response.json()["message"]


def test_a_canary_of_an_adapter_is_refused(judge: Api):
    adapter = put(example("full"), "spec.method.adaptation", {"type": "LoRA", "lora": {"publish": "Adapter"}})
    adapter = put(adapter, "spec.serving.strategy", "Adapter")
    response = judge.create(put(adapter, "spec.serving.analysis.canarySeconds", 60))
    assert "spec.serving.analysis.canarySeconds" in response.json()["message"]
    assert "write canarySeconds: 0" in response.json()["message"]
    judge.created(put(adapter, "spec.serving.analysis.canarySeconds", 0))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "a" * 40),
        ("spec.model.uri", "s3://models"),
        ("spec.model.uri", "file:///models"),
        ("spec.data.train", "file:///datasets/train.jsonl.gz"),
        ("spec.data.train", "file:///train.jsonl"),
        ("spec.data.train", "s3://b/data/train-00000-of-00001.parquet"),
        ("spec.data.train", "s3://b/a.jsonl"),
        ("spec.method", {"type": "SFT"}),
        ("spec.method", {"type": "SFT", "sdft": {"skipTokens": 3}}),
        ("spec.method.adaptation", {"type": "LoRA", "lora": {}}),
        ("spec.method.optimizer.learningRate", "0.00001"),
        ("spec.method.optimizer.learningRate", "2.5E-06"),
        ("spec.gates.retention.minNormalized", "1"),
        ("spec.gates.retention.maxDrop", "0"),
        ("spec.training.resources", {"limits": {"cpu": "500m", "memory": 1073741824}}),
        ("spec.training.gpusPerNode", 0),
        ("spec.revert", True),
        ("spec.data.retention", []),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_limits_themselves_are_taken(judge: Api, path, value):
    stored = judge.created(put(example("full"), path, value))
    if not isinstance(value, dict):
        assert get(stored, path) == value


def updates_shown(markdown: str) -> list[dict[str, Any]]:
    """The whole SkillUpdates among the YAML blocks of a page."""
    blocks = re.findall(r"```yaml\n(.*?)```", markdown, re.DOTALL)
    shown = [document for block in blocks for document in yaml.safe_load_all(block)]
    return [document for document in shown if isinstance(document, dict) and document.get("kind") == "SkillUpdate"]


def paths(value: Any, path: str = "") -> set[str]:
    """The paths of all keys of a document, written as `walk` writes those of the schema."""
    if isinstance(value, list):
        return set().union(*(paths(item, f"{path}[]") for item in value))
    if not isinstance(value, dict):
        return set()
    here = {name: f"{path}.{name}" if path else name for name in value}
    return set(here.values()).union(*(paths(child, here[name]) for name, child in value.items()))
