"""How facts are read from raw Kubernetes objects: the only place that knows where they keep what.

Pure: it reads dicts that somebody else fetched. Termination messages are parsed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skill_contract.manifest import FetchMessage
from skill_contract.model import ContractError
from skill_contract.outcome import Outcome
from skill_operator.api import (
    RUN_LABEL,
    STEP_CONTAINER,
    STEP_LABEL,
    WEIGHTS_ANNOTATION,
    WEIGHTS_FIELD_PATH,
    ConditionType,
    to_unix,
)
from skill_operator.observed import Neighbour, ServingPod, StepJob, StepPod, Target
from skill_operator.status import is_reverting, read

Raw = Mapping[str, Any]


def step_jobs(jobs: Iterable[Raw], pods: Iterable[Raw]) -> tuple[StepJob, ...]:
    """Returns the Jobs of one update with the pods that they own."""
    by_owner: dict[str, list[StepPod]] = {}
    for pod in pods:
        for owner in pod["metadata"].get("ownerReferences") or ():
            by_owner.setdefault(owner["uid"], []).append(_step_pod(pod))
    return tuple(_step_job(job, by_owner.get(job["metadata"]["uid"], [])) for job in jobs)


def _step_job(raw: Raw, pods: list[StepPod]) -> StepJob:
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    complete, failed = conditions.get("Complete"), conditions.get("Failed")
    return StepJob(
        name=metadata["name"],
        uid=metadata["uid"],
        step=labels.get(STEP_LABEL, ""),
        run=int(labels.get(RUN_LABEL) or 1),
        deleting=bool(metadata.get("deletionTimestamp")),
        suspended=bool(spec.get("suspend")),
        complete=complete is not None,
        failed=failed is not None,
        failed_reason=(failed or {}).get("reason", ""),
        failed_message=(failed or {}).get("message", ""),
        finished=to_unix((complete or failed or {}).get("lastTransitionTime")),
        failures=status.get("failed", 0),
        deadline_seconds=spec.get("activeDeadlineSeconds"),
        pods=tuple(sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True)),
    )


def _step_pod(raw: Raw) -> StepPod:
    metadata, status = raw["metadata"], raw.get("status") or {}
    container = _container(status.get("containerStatuses"), STEP_CONTAINER)
    state = container.get("state") or {}
    ended = state.get("terminated") or {}
    outcome, message = _outcome(ended.get("message", ""))
    return StepPod(
        name=metadata["name"],
        uid=metadata["uid"],
        node=(raw.get("spec") or {}).get("nodeName", ""),
        ip=status.get("podIP", ""),
        created=to_unix(metadata.get("creationTimestamp")) or 0.0,
        running="running" in state,
        deleting=bool(metadata.get("deletionTimestamp")),
        disrupted=_is_true(status, "DisruptionTarget"),
        started=to_unix((ended or state.get("running") or {}).get("startedAt")),
        finished=to_unix(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        out_of_memory=ended.get("reason") == "OOMKilled",
        outcome=outcome,
        message=message,
        waiting=_why_waiting(status, container),
    )


def _outcome(message: str) -> tuple[Outcome | None, str]:
    try:
        return Outcome.parse_json(message), ""
    except ContractError:
        return None, message


def _why_waiting(status: Raw, container: Raw) -> str:
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
        return f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    return _unschedulable(status)


def _unschedulable(status: Raw) -> str:
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return ""


def target(deployment: Raw | None, pods: Iterable[Raw], container: str) -> Target | None:
    """Returns the serving target, or None where it does not exist (or is being deleted).

    Args:
        container: name of the engine's container.
    """
    if deployment is None or deployment["metadata"].get("deletionTimestamp"):
        return None
    template = deployment["spec"]["template"]
    fetch = _fetch_container(template)
    is_settled, state = _rollout_state(deployment)
    return Target(
        name=deployment["metadata"]["name"],
        weights=((template.get("metadata") or {}).get("annotations") or {}).get(WEIGHTS_ANNOTATION, ""),
        weights_manager=_weights_manager(deployment["metadata"]),
        fetch_container=fetch,
        containers=tuple(c["name"] for c in template["spec"].get("containers") or ()),
        replicas=deployment["spec"].get("replicas", 1),
        is_settled=is_settled,
        state=state,
        # An evicted pod stays as an object, Failed, beside the one that took its place.
        pods=tuple(_serving_pod(pod, fetch, container) for pod in pods if not _is_over(pod)),
    )


def _is_over(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def _fetch_container(template: Raw) -> str:
    for container in template["spec"].get("initContainers") or ():
        for variable in container.get("env") or ():
            field = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
            if field == WEIGHTS_FIELD_PATH:
                return str(container["name"])
    return ""


def _rollout_state(deployment: Raw) -> tuple[bool, str]:
    """Returns whether a Deployment stands still on its newest template, and how far it is in words.

    Source: `kubectl rollout status` (kubectl, DeploymentStatusViewer), plus availability.
    """
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    total, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    if not wanted:
        settled = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1) and not total
        return settled, "it has 0 replicas, so that no pod can show what it serves: scale it up"
    if deployment["spec"].get("paused"):
        return False, "it is paused"
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 1):
        return False, "its newest template has not been seen by the Deployment controller yet"
    settled = updated == wanted and total == wanted and available == wanted
    return settled, f"{updated} of {wanted} replicas updated, {available} available, {total} in all"


def _weights_manager(metadata: Raw) -> str:
    key = f"f:{WEIGHTS_ANNOTATION}"
    managers = []
    for entry in metadata.get("managedFields") or ():
        fields = entry.get("fieldsV1") or {}
        for step in ("f:spec", "f:template", "f:metadata", "f:annotations"):
            fields = fields.get(step) or {}
        if key in fields:
            managers.append((entry.get("time", ""), entry.get("manager", "")))
    return max(managers, default=("", ""))[1]


def _serving_pod(raw: Raw, fetch: str, container: str) -> ServingPod:
    metadata, status = raw["metadata"], raw.get("status") or {}
    engine = _container(status.get("containerStatuses"), container)
    ended = _ended(engine)
    return ServingPod(
        name=metadata["name"],
        ip=status.get("podIP", ""),
        weights=(metadata.get("annotations") or {}).get(WEIGHTS_ANNOTATION, ""),
        ready=_is_true(status, "Ready"),
        deleting=bool(metadata.get("deletionTimestamp")),
        fetch=_fetch_message(_ended(_container(status.get("initContainerStatuses"), fetch))),
        engine_restarts=engine.get("restartCount", 0),
        engine_out_of_memory=ended.get("reason") == "OOMKilled",
        engine_last_exit=to_unix(ended.get("finishedAt")),
        engine_message=f"exit code {ended.get('exitCode')}: {ended.get('message', '')}".rstrip(": ") if ended else "",
        unschedulable=_unschedulable(status),
    )


def _fetch_message(ended: Raw) -> FetchMessage | None:
    try:
        return FetchMessage.parse_json(ended.get("message", "")) if ended else None
    except ContractError:
        return None


def neighbour(raw: Raw) -> Neighbour:
    """Returns what other updates need to know of this one."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, read(raw.get("status") or {})
    is_queued = status.is_true(ConditionType.QUEUED) or status.is_true(ConditionType.SUSPENDED)
    serving = ((spec.get("serving") or {}).get("targetRef") or {}).get("name", "")
    going_back = is_reverting(raw)
    is_rolling = status.rollout is not None and (going_back or not status.is_final)
    return Neighbour(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        model=model_key((spec.get("model") or {}).get("uri", "")),
        suspended=bool(spec.get("suspend")) and not is_rolling,  # a rollout is finished in spite of it
        is_active=status.start_time is not None and not is_queued,
        rolling=f"{metadata['namespace']}/{serving}" if is_rolling and serving else "",
        is_reverting=going_back,
    )


def model_key(uri: str) -> str:
    """Returns what two URIs of one model repository have in common."""
    return uri.rstrip("/")


def selector(deployment: Raw) -> str:
    """Returns the label selector of a Deployment's pods as a query string (meta/v1 LabelSelector)."""
    given = deployment["spec"]["selector"]
    terms = [f"{key}={value}" for key, value in (given.get("matchLabels") or {}).items()]
    for expression in given.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        form = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        terms.append(form[expression["operator"]])
    return ",".join(terms)


def _container(statuses: Iterable[Raw] | None, name: str) -> Raw:
    return next((status for status in statuses or () if status.get("name") == name), {})


def _ended(container: Raw) -> Raw:
    """Returns the newest end of a container: its present state, or, where it was started again, the one before."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    return state.get("terminated") or last.get("terminated") or {}


def _is_true(status: Raw, kind: str) -> bool:
    return any(c["type"] == kind and c.get("status") == "True" for c in status.get("conditions") or ())
