"""The Jobs of an update: check, train and promote; the last by four names.

Pure. What a Job's failure means is said once, here, in Kubernetes' own words (podFailurePolicy), so that a node drain,
a preemption or a user's mistake is told apart even while the operator is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from skill_contract.manifest import VersionRef
from skill_contract.outcome import ExitCode
from skill_contract.spec import SkillUpdateSpec, Training
from skill_contract.step import PODS_AT_ONCE, PROGRESS_PORT, Pod, PromoteConfig, Retention, Step, TrainConfig
from skill_operator.api import (
    API_VERSION,
    FIELD_MANAGER,
    KIND,
    KUEUE_LABELS,
    MANAGED_BY_LABEL,
    RUN_LABEL,
    STEP_CONTAINER,
    STEP_LABEL,
    UPDATE_LABEL,
    UPDATE_UID_LABEL,
    USED_ANNOTATION,
    SkillUpdate,
)
from skill_operator.manifests.pod import Images, placeless, step_pod
from skill_operator.names import job_name
from skill_operator.status import Used

REVERT = "revert"
"""The promote step run backwards, under a name of its own."""
PROVE = "prove"
"""The promote step's first half: the first new pod is asked, and the head stays."""
PREFLIGHT = "preflight"
"""The promote step without a pod to ask, before anything is told: only whether a version is there."""

CHECK_DEADLINE_SECONDS = 3600
PROMOTE_SECONDS = 900
"""For a promote step to start, to ask a first round of pods and to move the head; image pull and queues count, too."""
ROUND_SECONDS = 300
"""For each further round of pods (`PODS_AT_ONCE`) that it asks."""
_CHECK = {"requests": {"cpu": "100m", "memory": "1Gi"}}
"""The trainer's program takes 0.8 GB before it has read any data."""
_PROMOTE = {"requests": {"cpu": "100m", "memory": "256Mi"}}


def check_job(update: SkillUpdate, spec: SkillUpdateSpec, images: Images, run: int = 1) -> dict[str, Any]:
    """Returns the Job that validates data, credentials and model, on a CPU, before any GPU is asked for."""
    pod = step_pod(
        image=images.trainer,
        pull_policy=images.pull_policy,
        arguments=[Step.CHECK],
        config=train_config(update, spec).dump_json(),
        storage=spec.storage,
        resources=_CHECK,
        template=placeless(spec.training.template),
    )
    return _job(update, Step.CHECK, run, images, pod, retries=3, deadline_seconds=CHECK_DEADLINE_SECONDS)


def train_job(
    update: SkillUpdate, spec: SkillUpdateSpec, images: Images, run: int = 1, used: Used | None = None
) -> dict[str, Any]:
    """Returns the Indexed Job that trains on one node, evaluates and publishes; of several: see `jobset`.

    Args:
        used: by the update's Jobs before; None for nothing.
    """
    training = spec.training
    pod = step_pod(
        image=images.trainer,
        pull_policy=images.pull_policy,
        arguments=[Step.TRAIN],
        config=train_config(update, spec).dump_json(),
        storage=spec.storage,
        resources=_with_gpus(training),
        template=_with_shared_memory(training),
        ports=[{"name": "progress", "containerPort": PROGRESS_PORT}],
        grace_seconds=training.grace_period_seconds,
    )
    job = _job(
        update, Step.TRAIN, run, images, pod,
        retries=training.failure_policy.max_restarts,
        deadline_seconds=training.active_deadline_seconds,
    )  # fmt: skip
    job["spec"]["completionMode"] = "Indexed"
    if used and used != Used():
        job["metadata"]["annotations"] = {USED_ANNOTATION: used.dump_json()}
    job["metadata"]["labels"] |= {key: update.labels[key] for key in KUEUE_LABELS if key in update.labels}
    metadata = job["spec"]["template"]["metadata"]
    metadata["labels"] = {**training.template.get("labels", {}), **metadata["labels"]}
    metadata["annotations"] = dict(training.template.get("annotations", {}))
    return job


def promote_job(
    update: SkillUpdate,
    spec: SkillUpdateSpec,
    images: Images,
    *,
    version: VersionRef,
    parent_digest: str,
    pods: tuple[Pod, ...] = (),
    retention: Retention | None = None,
    step: str = Step.PROMOTE,
    model: str = "",
    run: int = 1,
) -> dict[str, Any]:
    """Returns the Job that proves what `pods` serve and then moves the head from `parent_digest` to `version`.

    Args:
        model: the name under which it is asked for; empty: that under which the model is served.
    """
    config = PromoteConfig(
        update=update.identity,
        model_uri=spec.model.uri,
        version=version.version,
        digest=version.digest,
        parent_digest=parent_digest,
        served_model_name=model or (spec.serving.served_model_name if spec.serving else ""),
        pods=pods,
        prove_only=step in {PROVE, PREFLIGHT},
        retention=retention,
    )
    template = placeless(spec.training.template)
    template.pop("image", None)  # the image in the template is the user's own trainer; this is the store's step
    pod = step_pod(
        image=images.store,
        pull_policy=images.pull_policy,
        arguments=[Step.PROMOTE],
        config=config.dump_json(),
        storage=spec.storage,
        resources=_PROMOTE,
        template=template,
    )
    # No retries inside the Job: its pods' addresses may have changed, so the operator asks anew.
    return _job(update, step, run, images, pod, retries=0, deadline_seconds=_promote_seconds(len(pods)))


def _promote_seconds(pods: int) -> int:
    """Returns how long a promote step that has to ask so many pods may take."""
    return PROMOTE_SECONDS + ROUND_SECONDS * max(0, ceil(pods / PODS_AT_ONCE) - 1)


def train_config(update: SkillUpdate, spec: SkillUpdateSpec) -> TrainConfig:
    """Returns the configuration of `check` and `train`: the parts of the spec that they need."""
    # How and where the pod runs is not the trainer's business, and would make two equal runs look different.
    training = spec.training.model_copy(update={"template": {}, "resources": {}})
    return TrainConfig(
        update=update.identity,
        model=spec.model,
        skill=spec.skill,
        data=spec.data,
        method=spec.method,
        training=training,
        gates=spec.gates,
    )


def child_labels(update: SkillUpdate, step: str, run: int, images: Images) -> dict[str, str]:
    """Returns the labels of a child and of its pods."""
    return {
        "app.kubernetes.io/name": "skillupdate",
        "app.kubernetes.io/component": step,
        "app.kubernetes.io/part-of": "skillupdate",
        MANAGED_BY_LABEL: FIELD_MANAGER,
        **({"app.kubernetes.io/version": images.version} if images.version else {}),
        UPDATE_LABEL: update.name[:63].rstrip("-."),
        UPDATE_UID_LABEL: update.uid,
        STEP_LABEL: step,
        RUN_LABEL: str(run),
    }


def owner_reference(update: SkillUpdate) -> dict[str, Any]:
    """Returns the reference by which Kubernetes removes a child when its update is deleted."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": update.name,
        "uid": update.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _job(
    update: SkillUpdate,
    step: str,
    run: int,
    images: Images,
    pod: dict[str, Any],
    *,
    retries: int,
    deadline_seconds: int,
) -> dict[str, Any]:
    labels = child_labels(update, step, run, images)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(update.name, update.uid, step, run),
            "namespace": update.namespace,
            "labels": dict(labels),
            "ownerReferences": [owner_reference(update)],
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": retries,
            "activeDeadlineSeconds": deadline_seconds,
            # Two pods of one step must never run at once: the next starts when the one before has really ended.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
        },
    }


def _failure_rules() -> list[dict[str, Any]]:
    """Returns what a failed pod means; the first rule that fits counts, and without one a restart is used up.

    Source: batch/v1 PodFailurePolicyRule.
    """

    def on_exit(code: ExitCode, action: str) -> dict[str, Any]:
        codes = {"containerName": STEP_CONTAINER, "operator": "In", "values": [int(code)]}
        return {"action": action, "onExitCodes": codes}

    disrupted = {"type": "DisruptionTarget", "status": "True"}
    return [
        on_exit(ExitCode.USER_ERROR, "FailJob"),
        on_exit(ExitCode.PREEMPTED, "Ignore"),
        {"action": "Ignore", "onPodConditions": [disrupted]},
    ]


def _with_gpus(training: Training) -> dict[str, Any]:
    resources = {kind: _as_strings(training.resources.get(kind) or {}) for kind in ("requests", "limits")}
    if training.gpus_per_node:
        # Extended resources cannot be overcommitted: the limit is enough, the request follows it.
        resources["limits"][training.gpu_resource] = str(training.gpus_per_node)
    return {kind: amounts for kind, amounts in resources.items() if amounts}


def _with_shared_memory(training: Training) -> Mapping[str, Any]:
    """Returns the template with room for what several processes on one node exchange: a container's own is 64 MiB."""
    template, path = training.template, "/dev/shm"  # noqa: S108 - a volume of the pod's own
    mounts = template.get("volumeMounts", [])
    if training.gpus_per_node < 2 or any(mount["mountPath"] == path for mount in mounts):
        return template
    volume = {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}
    return {
        **template,
        "volumes": [*template.get("volumes", []), volume],
        "volumeMounts": [*mounts, {"name": volume["name"], "mountPath": path}],
    }


def _as_strings(amounts: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(amount) for name, amount in amounts.items()}
