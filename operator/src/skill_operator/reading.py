"""How facts are read from raw Kubernetes objects: the only place that knows where Jobs and their pods keep what.

Pure: it reads dicts that somebody else fetched. What serving targets say is read in `targets`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from skill_contract.evaluation import Evaluation
from skill_contract.model import ContractError
from skill_contract.outcome import ExitCode, Outcome
from skill_operator.api import (
    QUEUE_LABEL,
    RUN_LABEL,
    STEP_CONTAINER,
    STEP_LABEL,
    UPDATE_UID_LABEL,
    USED_ANNOTATION,
    WORKLOAD_OWNER_LABEL,
    to_unix,
)
from skill_operator.observed import StepJob, StepPod, Workload
from skill_operator.status import MOST_NAME, MOST_REASON, Used

Raw = Mapping[str, Any]
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""On the pods of an Indexed Job (batch/v1): their number."""


def step_jobs(
    jobs: Iterable[Raw], pods: Iterable[Raw], jobsets: Iterable[Raw] = (), workloads: Iterable[Raw] = ()
) -> tuple[StepJob, ...]:
    """Returns the Jobs and JobSets of one update with their pods, and what Kueue says of them.

    Args:
        jobs: also those inside of JobSets, of which each has one at a time.
    """
    alone, inside = [], {}
    for job in jobs:
        owner = _owner(job)
        if owner.get("kind") == "JobSet":
            inside[owner["uid"]] = job
        else:
            alone.append(job)
    by_owner: dict[str, list[StepPod]] = {}
    for pod in pods:
        by_owner.setdefault(_owner(pod).get("uid", ""), []).append(_step_pod(pod))
    in_kueue = {_label(raw, WORKLOAD_OWNER_LABEL): _workload(raw) for raw in workloads}

    def workload(raw: Raw) -> Workload | None:
        return in_kueue.get(raw["metadata"]["uid"])

    def own_pods(raw: Raw | None) -> list[StepPod]:
        return by_owner.get(raw["metadata"]["uid"], []) if raw else []

    found = [_step_job(job, own_pods(job), workload(job)) for job in alone]
    for jobset in jobsets:
        within = inside.get(jobset["metadata"]["uid"])
        found.append(_step_jobset(jobset, within, own_pods(within), workload(jobset)))
    return tuple(found)


def is_child(raw: Raw, uid: str) -> bool:
    """Returns whether an object belongs to the update with this uid: by its label, or its owner where that is lost."""
    owners = {owner["uid"] for owner in raw["metadata"].get("ownerReferences") or ()}
    return uid in owners or _label(raw, UPDATE_UID_LABEL) == uid


def lost_labels(raw: Raw, manifest: Raw) -> dict[str, str]:
    """Returns the labels that a child has to have to be found as the child that it is, and has not."""
    wanted = manifest["metadata"]["labels"]
    return {key: wanted[key] for key in (UPDATE_UID_LABEL, STEP_LABEL, RUN_LABEL) if _label(raw, key) != wanted[key]}


def _step_job(raw: Raw, pods: list[StepPod], workload: Workload | None) -> StepJob:
    status, conditions = raw.get("status") or {}, true_conditions(raw)
    preempted = sum(pod.is_preempted and not (workload and pod.deleting and not pod.disruption) for pod in pods)
    return _job_like(
        "Job", raw, pods, workload,
        complete=conditions.get("Complete"),
        failed=conditions.get("Failed"),
        why=conditions.get("Failed"),
        failures=status.get("failed", 0),
        preemptions=preempted,
        started=to_unix(status.get("startTime")),
    )  # fmt: skip


def _step_jobset(raw: Raw, within: Raw | None, pods: list[StepPod], workload: Workload | None) -> StepJob:
    """Returns the facts of a JobSet; it says only which Job has failed; why, the Job `within` it knows.

    Source: JobSetStatus, v1alpha2: `restarts` are all, `restartsCountTowardsMax` those that were failures.
    """
    status, conditions = raw.get("status") or {}, true_conditions(raw)
    failed, counted = conditions.get("Failed"), status.get("restartsCountTowardsMax", 0)
    resumed: Raw = next((c for c in status.get("conditions") or () if c["type"] == "Suspended"), {})
    return _job_like(
        "JobSet", raw, pods, workload,
        complete=conditions.get("Completed"),
        failed=failed,
        why=failed and (true_conditions(within or {}).get("Failed") or failed),
        failures=counted + (failed is not None),
        preemptions=status.get("restarts", 0) - counted,
        started=to_unix(resumed.get("lastTransitionTime") or raw["metadata"].get("creationTimestamp")),
    )  # fmt: skip


def _job_like(
    kind: str, raw: Raw, pods: list[StepPod], workload: Workload | None,
    *, complete: Raw | None, failed: Raw | None, why: Raw | None,
    failures: int, preemptions: int, started: float | None,
) -> StepJob:  # fmt: skip
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    suspended = bool(spec.get("suspend"))
    return StepJob(
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        step=_label(raw, STEP_LABEL),
        run=_number(_label(raw, RUN_LABEL), 1),
        deleting=bool(metadata.get("deletionTimestamp")),
        suspended=suspended,
        complete=complete is not None,
        failed=failed is not None,
        failed_reason=(why or {}).get("reason", ""),
        failed_message=(why or {}).get("message", ""),
        finished=to_unix((complete or failed or {}).get("lastTransitionTime")),
        failures=failures,
        preemptions=preemptions + (workload.evictions if workload else 0),
        started=None if suspended else started,
        deadline_seconds=spec.get("activeDeadlineSeconds"),
        queue=_label(raw, QUEUE_LABEL),
        pods=tuple(sorted(pods, key=_age, reverse=True)),
        used=_used((metadata.get("annotations") or {}).get(USED_ANNOTATION, "{}")),
        workload=workload,
    )


def _workload(raw: Raw) -> Workload:
    """Returns what Kueue's Workload says.

    Source: kueue.x-k8s.io/v1beta2 Workload: `Admitted` is true as soon as it may run; `schedulingStats.evictions`.
    """
    status = raw.get("status") or {}
    evictions = (status.get("schedulingStats") or {}).get("evictions") or ()
    waiting = "" if is_true(status, "Admitted") else _why_not_admitted(status.get("conditions") or ())
    return Workload(waiting=waiting, evictions=sum(eviction["count"] for eviction in evictions))


def _why_not_admitted(conditions: Iterable[Raw]) -> str:
    said = {condition["type"]: condition for condition in conditions}
    quota, evicted = said.get("QuotaReserved") or {}, said.get("Evicted") or {}
    if evicted.get("status") == "True":
        return f"evicted ({evicted.get('reason')}): {evicted.get('message', '')}".strip()
    if quota.get("status") == "True":
        return "it has its quota, and waits for Kueue's admission checks"
    return str(quota.get("message") or "it waits for its turn")


def true_conditions(raw: Raw) -> dict[str, Raw]:
    """Returns an object's conditions that are true, by type."""
    status = raw.get("status") or {}
    return {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}


def _owner(raw: Raw) -> Raw:
    return next(iter(raw["metadata"].get("ownerReferences") or ()), {})


def _label(raw: Raw, name: str) -> str:
    return str((raw["metadata"].get("labels") or {}).get(name, ""))


def _number(text: str, default: int) -> int:
    """Returns the number in a label, which anybody who may edit the object can have written."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else default


def _age(pod: StepPod) -> tuple[float, bool, str]:
    """Of two pods that were created in one second, the one that has not failed is the newer."""
    return pod.created, pod.exit_code in {None, ExitCode.FINISHED}, pod.name


def _used(text: str) -> Used:
    try:
        return Used.parse_json(text)
    except ContractError:
        return Used()


def _step_pod(raw: Raw) -> StepPod:
    metadata, status = raw["metadata"], raw.get("status") or {}
    container = container_status(status.get("containerStatuses"), STEP_CONTAINER)
    state = container.get("state") or {}
    ended = state.get("terminated") or {}
    outcome, message = _outcome(ended.get("message", ""))
    return StepPod(
        name=metadata["name"],
        uid=metadata["uid"],
        index=_number(_label(raw, INDEX_LABEL), 0),
        node=(raw.get("spec") or {}).get("nodeName", ""),
        ip=status.get("podIP", ""),
        created=to_unix(metadata.get("creationTimestamp")) or 0.0,
        running="running" in state,
        deleting=bool(metadata.get("deletionTimestamp")),
        disruption=_disruption(raw),
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
        outcome = Outcome.parse_json(message)
    except ContractError:
        return None, message
    return (outcome, "") if outcome.evaluation is None or _fits(outcome.evaluation) else (None, message)


def _fits(evaluation: Evaluation) -> bool:
    """Returns whether the CRD takes it as a part of the status: who wrote it may be any program."""
    own = (evaluation.in_context_gain, evaluation.new_skill)
    compared = [each for each in (*own, *evaluation.retention) if each]
    return all(len(each.suite) <= MOST_NAME and len(each.reason) <= MOST_REASON for each in compared)


def _disruption(raw: Raw) -> str:
    """Source: core/v1 PodConditionType DisruptionTarget; Kubernetes, "Pod disruption conditions"."""
    found = true_conditions(raw).get("DisruptionTarget")
    if found is None:
        return ""
    return f"{found.get('reason') or 'DisruptionTarget'}: {found.get('message', '')}".rstrip(": ")


def _why_waiting(status: Raw, container: Raw) -> str:
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
        return f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    return why_unschedulable(status)


def why_unschedulable(status: Raw) -> str:
    """Returns why no node is found for a pod, in the scheduler's words; empty where one is."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return ""


def container_status(statuses: Iterable[Raw] | None, name: str) -> Raw:
    """Returns a container's part of a pod's status; empty where there is none yet."""
    return next((status for status in statuses or () if status.get("name") == name), {})


def last_end(container: Raw) -> Raw:
    """Returns the newest end of a container: its present state, or, where it was started again, the one before."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    return state.get("terminated") or last.get("terminated") or {}


_TAIL = 512
"""Characters of a container's last words that are passed on."""


def dying(status: Raw) -> str:
    """Returns which container of a pod that does not come up has ended last, and how; empty where none has."""
    containers = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    for container in containers:
        ended = last_end(container)
        if ended.get("exitCode"):
            again = f", started again {container['restartCount']} times" if container.get("restartCount") else ""
            how = f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}{again}"
            words = str(ended.get("message") or "").strip()[-_TAIL:]
            return f"container {container.get('name', '')} ended ({how}): {words}".rstrip(": ")
    return ""


def is_true(status: Raw, kind: str) -> bool:
    """Returns whether a status has a condition that is true."""
    return any(c["type"] == kind and c.get("status") == "True" for c in status.get("conditions") or ())
