"""The Jobs that the operator makes: restricted, owned, labelled, with the failure policy of the contract."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from skill_contract.manifest import VersionRef
from skill_contract.spec import SecretRef, SkillUpdateSpec, Storage
from skill_contract.step import Pod, PromoteConfig, TrainConfig
from skill_operator.api import SkillUpdate, parse
from skill_operator.manifests.job import check_job, promote_job, train_job
from skill_operator.manifests.serving import digest_in, weights_patch, wiring
from tests.operator import raw
from tests.operator.sim import IMAGES


def made(**spec: Any) -> tuple[SkillUpdate, SkillUpdateSpec]:
    update = parse(raw.update(**spec))
    assert update.spec is not None, update.problem
    return update, update.spec


def jobs(**spec: Any) -> dict[str, raw.Raw]:
    """Every Job of an update, by step."""
    update, parsed = made(**spec)
    version = VersionRef(version=raw.CHILD[0], digest=raw.CHILD[1])
    pods = (Pod(name="p", url="http://10.0.0.1:8000"),)
    return {
        "check": check_job(update, parsed, IMAGES),
        "train": train_job(update, parsed, IMAGES),
        "promote": promote_job(update, parsed, IMAGES, version=version, parent_digest=raw.PARENT[1], pods=pods),
    }


@pytest.mark.parametrize(("pods", "seconds"), [(0, 900), (1, 900), (4, 900), (5, 1200), (100, 900 + 24 * 300)])
def test_promote_step_has_time_for_every_pod_that_it_asks(pods: int, seconds: int):
    update, parsed = made()
    version = VersionRef(version=raw.CHILD[0], digest=raw.CHILD[1])
    asked = tuple(Pod(name=f"p{n}", url="http://10.0.0.1:8000") for n in range(pods))
    job = promote_job(update, parsed, IMAGES, version=version, parent_digest=raw.PARENT[1], pods=asked)
    assert job["spec"]["activeDeadlineSeconds"] == seconds


def pod_of(job: raw.Raw) -> raw.Raw:
    return job["spec"]["template"]["spec"]


def container_of(job: raw.Raw) -> raw.Raw:
    (container,) = pod_of(job)["containers"]
    return container


def environment(job: raw.Raw) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in container_of(job)["env"]}


@pytest.mark.parametrize("step", ["check", "train", "promote"])
def test_pod_is_restricted_and_has_no_token(step: str):
    job = jobs()[step]
    pod, container = pod_of(job), container_of(job)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    of_eight_gpus = {"/dev/shm"} if step == "train" else set()
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/scratch"} | of_eight_gpus
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert (container["name"], pod["restartPolicy"]) == ("step", "Never")


def test_failure_policy_says_what_the_exit_codes_of_the_contract_mean():
    spec = jobs(training={"failurePolicy": {"maxRestarts": 7}, "activeDeadlineSeconds": 77})["train"]["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["completionMode"]) == (7, 77, "Indexed")
    assert spec["podReplacementPolicy"] == "Failed"
    rules = spec["podFailurePolicy"]["rules"]
    assert [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in rules] == [
        ("FailJob", [42]), ("Ignore", [75]), ("Ignore", None),
    ]  # fmt: skip
    assert rules[2]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(("training", "seconds"), [({}, 120), ({"gracePeriodSeconds": 1800}, 1800)])
def test_a_training_pod_has_the_time_to_save_that_the_user_gives_it(training: raw.Raw, seconds: int):
    """In the other two there is nothing to save."""
    graces = {step: pod_of(job)["terminationGracePeriodSeconds"] for step, job in jobs(training=training).items()}
    assert graces == {"check": 30, "train": seconds, "promote": 30}


@pytest.mark.parametrize(
    ("training", "resources"),
    [
        ({"gpusPerNode": 8}, {"limits": {"nvidia.com/gpu": "8"}}),
        ({"gpusPerNode": 0}, {}),
        ({"gpusPerNode": 1, "gpuResource": "amd.com/gpu", "resources": {"requests": {"cpu": 4, "memory": "16Gi"}}},
         {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"amd.com/gpu": "1"}}),
    ],
)  # fmt: skip
def test_only_training_asks_for_gpus(training: raw.Raw, resources: raw.Raw):
    made_jobs = jobs(training=training)
    assert container_of(made_jobs["train"])["resources"] == resources
    for step in ("check", "promote"):
        assert "limits" not in container_of(made_jobs[step])["resources"]


@pytest.mark.parametrize(("gpus", "expected"), [(0, False), (1, False), (2, True)])
def test_several_gpus_come_with_memory_to_share(gpus: int, expected: bool):
    job = jobs(training={"gpusPerNode": gpus})["train"]
    mounted = {mount["name"] for mount in container_of(job)["volumeMounts"] if mount["mountPath"] == "/dev/shm"}
    in_memory = {each["name"] for each in pod_of(job)["volumes"] if each.get("emptyDir") == {"medium": "Memory"}}
    assert mounted == in_memory
    assert bool(mounted) is expected


def test_shared_memory_of_the_users_own_is_kept():
    template = {
        "volumes": [{"name": "mine", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}],
        "volumeMounts": [{"name": "mine", "mountPath": "/dev/shm"}],
    }
    job = jobs(training={"gpusPerNode": 8, "template": template})["train"]
    assert [each["name"] for each in container_of(job)["volumeMounts"] if each["mountPath"] == "/dev/shm"] == ["mine"]
    assert "shared-memory" not in {each["name"] for each in pod_of(job)["volumes"]}


def test_configuration_reads_back_as_the_spec_says():
    made_jobs = jobs(skill={"description": "costs $(PRICE) or $5"}, method={"seed": 5})
    config = TrainConfig.parse_json(environment(made_jobs["train"])["SKILL_CONFIG"].replace("$$", "$"))
    assert (config.update.uid, config.method.seed, config.skill.description) == (raw.UID, 5, "costs $(PRICE) or $5")
    promote = PromoteConfig.parse_json(environment(made_jobs["promote"])["SKILL_CONFIG"])
    assert (promote.digest, promote.parent_digest) == (raw.CHILD[1], raw.PARENT[1])


def test_no_dollar_of_the_configuration_is_left_for_kubernetes_to_expand():
    config = environment(jobs(skill={"description": "$(HOME)"})["train"])["SKILL_CONFIG"]
    assert "$$(HOME)" in config


def test_placing_and_resources_do_not_reach_the_trainer():
    job = jobs(training={"template": {"nodeSelector": {"pool": "a"}}, "resources": {"requests": {"cpu": "4"}}})["train"]
    training = TrainConfig.parse_json(environment(job)["SKILL_CONFIG"]).training
    assert (training.template, training.resources) == ({}, {})


def test_storage_reaches_every_step_as_the_sdk_expects_it():
    storage = {"secretRef": {"name": "s3-creds"}, "endpoint": "http://s3:8333", "serviceAccountName": "trainer"}
    for job in jobs(storage=storage).values():
        assert container_of(job)["envFrom"] == [{"secretRef": {"name": "s3-creds"}}]
        assert environment(job)["AWS_ENDPOINT_URL_S3"] == "http://s3:8333"
        assert pod_of(job)["serviceAccountName"] == "trainer"
        assert pod_of(job)["automountServiceAccountToken"] is False


def test_nothing_that_the_secret_may_say_is_said_for_it():
    """A variable of `env` wins over the same one of `envFrom` (core/v1 Container.envFrom)."""
    for job in jobs(storage={"secretRef": {"name": "s3-creds"}, "endpoint": "http://s3"}).values():
        assert set(environment(job)) == {"SKILL_CONFIG", "AWS_ENDPOINT_URL_S3"}


def test_variables_and_the_files_that_they_name_reach_every_step():
    template = {
        "env": [{"name": "AWS_CA_BUNDLE", "value": "/ca/ca.crt"}],
        "volumes": [
            {"name": "ca", "configMap": {"name": "ca"}},
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "scratch", "persistentVolumeClaim": {"claimName": "fast"}},
            {"name": "nvme", "hostPath": {"path": "/mnt"}},
        ],
        "volumeMounts": [
            {"name": "ca", "mountPath": "/ca"}, {"name": "models", "mountPath": "/models"},
            {"name": "nvme", "mountPath": "/nvme"},
        ],
    }  # fmt: skip
    made_jobs = jobs(training={"template": template})
    for step in ("check", "promote"):
        pod, container = pod_of(made_jobs[step]), container_of(made_jobs[step])
        assert environment(made_jobs[step])["AWS_CA_BUNDLE"] == "/ca/ca.crt"
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/scratch", "/ca", "/models"}
        volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
        assert volumes["models"] == {"persistentVolumeClaim": {"claimName": "models"}}
        assert (volumes["scratch"], set(volumes)) == ({"emptyDir": {}}, {"tmp", "scratch", "ca", "models"})


TEMPLATE = {
    "labels": {"team": "support", "sdft.dev/step": "forged"},
    "annotations": {"note": "x"},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "priorityClassName": "low",
    "image": "mine/trainer:1",
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Ti"}}, {"name": "cache", "emptyDir": {}}],
    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
}


def test_template_shapes_the_training_pod_and_leaves_the_operator_s_labels_alone():
    job = jobs(training={"template": TEMPLATE})["train"]
    pod, metadata = pod_of(job), job["spec"]["template"]["metadata"]
    assert (metadata["labels"]["team"], metadata["labels"]["sdft.dev/step"]) == ("support", "train")
    assert metadata["annotations"] == {"note": "x"}
    assert (pod["nodeSelector"], pod["priorityClassName"]) == ({"pool": "gpu"}, "low")
    assert container_of(job)["image"] == "mine/trainer:1"
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert volumes == {
        "tmp": {}, "scratch": {"sizeLimit": "1Ti"}, "cache": {}, "shared-memory": {"medium": "Memory"},
    }  # fmt: skip


def test_nothing_that_places_the_training_pod_reaches_the_other_steps():
    made_jobs = jobs(training={"template": TEMPLATE})
    for step in ("check", "promote"):
        assert pod_of(made_jobs[step])["imagePullSecrets"] == [{"name": "registry"}]
        assert {"nodeSelector", "tolerations", "priorityClassName"}.isdisjoint(pod_of(made_jobs[step]))
    assert container_of(made_jobs["check"])["image"] == "mine/trainer:1"
    assert container_of(made_jobs["promote"])["image"] == "store:1"


def test_queue_label_of_kueue_reaches_the_train_job_only():
    update = parse(raw.update(metadata={"labels": {"kueue.x-k8s.io/queue-name": "gpus", "other": "x"}}))
    assert update.spec is not None
    train, check = train_job(update, update.spec, IMAGES), check_job(update, update.spec, IMAGES)
    assert train["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "other" not in train["metadata"]["labels"]
    assert "kueue.x-k8s.io/queue-name" not in check["metadata"]["labels"]
    assert "kueue.x-k8s.io/queue-name" not in train["spec"]["template"]["metadata"]["labels"]


def test_weights_patch_owns_two_annotations_or_nothing():
    patch = weights_patch(raw.PLACE, raw.CANDIDATE)
    annotations = {"sdft.dev/weights": raw.CANDIDATE, "sdft.dev/version": raw.CHILD[0]}
    assert patch["spec"] == {"template": {"metadata": {"annotations": annotations}}}
    assert weights_patch(raw.PLACE, "")["spec"] == {"template": {"metadata": {}}}


@pytest.mark.parametrize(("weights", "digest"), [(raw.CANDIDATE, raw.CHILD[1]), ("", ""), ("s3://m/versions/1", "")])
def test_digest_in_an_annotation(weights: str, digest: str):
    assert digest_in(weights) == digest


@pytest.mark.parametrize("storage", [Storage(), Storage(endpoint="http://s3:9000", secret_ref=SecretRef(name="creds"))])
def test_lines_to_paste_reach_the_store_that_the_steps_reach(storage: Storage):
    document = {
        "model": {"uri": "s3://models/llm"}, "skill": {"name": "refund"},
        "data": {"train": "s3://d/t.jsonl", "heldOut": {"uri": "s3://d/h.jsonl"}},
        "storage": storage.dump(), "serving": {"targetRef": {"name": "llm"}},
    }  # fmt: skip
    lines = yaml.safe_load(wiring(SkillUpdateSpec.parse(document)))
    (fetch,) = lines["initContainers"]
    given = {each["name"]: each.get("value") for each in fetch["env"]}
    assert given["SKILL_DEFAULT"] == "s3://models/llm"
    assert given.get("AWS_ENDPOINT_URL_S3", "") == storage.endpoint
    named = [each["secretRef"]["name"] for each in fetch.get("envFrom", [])]
    assert named == ([storage.secret_ref.name] if storage.secret_ref else [])
    (engine,) = lines["containers"]
    assert 5 <= engine["lifecycle"]["preStop"]["sleep"]["seconds"] <= 20, "long enough to be heard of, within 30 s"
