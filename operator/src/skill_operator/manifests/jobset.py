"""Training on several nodes: one JobSet, whose pods start, fail and start again together.

Pure. JobSet (jobset.x-k8s.io) gives what a Job alone has not: where one pod fails, all are made anew, so that none
waits for ever for one that is gone; and a name by which all find the first.
"""

from __future__ import annotations

from typing import Any

from skill_contract.outcome import ExitCode
from skill_contract.spec import SkillUpdateSpec
from skill_contract.step import MEETING_PORT, Step
from skill_operator.api import SkillUpdate
from skill_operator.manifests.job import train_job
from skill_operator.manifests.pod import Images
from skill_operator.names import MAX_JOBSET_NAME, job_name
from skill_operator.status import Used

API_VERSION = "jobset.x-k8s.io/v1alpha2"
_PODS = "node"
"""Name of the only replicated job: pods are called `<jobset>-node-0-<index>`."""


def train_workload(
    update: SkillUpdate, spec: SkillUpdateSpec, images: Images, run: int = 1, used: Used | None = None
) -> dict[str, Any]:
    """Returns what trains: a Job on one node, a JobSet on several."""
    build = train_job if spec.training.nodes == 1 else train_jobset
    return build(update, spec, images, run, used)


def train_jobset(
    update: SkillUpdate, spec: SkillUpdateSpec, images: Images, run: int = 1, used: Used | None = None
) -> dict[str, Any]:
    """Returns the JobSet that trains on several nodes, evaluates and publishes: the Job of one node, several times.

    Source: JobSet v1alpha2 API; how its controller restarts, v0.11.
    """
    job = train_job(update, spec, images, run, used)
    name = job_name(update.name, update.uid, Step.TRAIN, run, longest=MAX_JOBSET_NAME)
    labels = dict(job["spec"]["template"]["metadata"]["labels"])
    _arrange_meeting(job["spec"]["template"]["spec"]["containers"][0], first=f"{name}-{_PODS}-0-0.{name}")
    return {
        "apiVersion": API_VERSION,
        "kind": "JobSet",
        "metadata": job["metadata"] | {"name": name},
        "spec": {
            "replicatedJobs": [
                {
                    "name": _PODS,
                    "replicas": 1,
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": _all_or_nothing(job["spec"], spec.training.nodes),
                    },
                }
            ],
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": name},
            "successPolicy": {"operator": "All"},
            "failurePolicy": {
                "maxRestarts": spec.training.failure_policy.max_restarts,
                # Two pods of one step must never run at once: the next start when those before have really ended.
                "restartStrategy": "BlockingRecreate",
                "rules": _restart_rules(),
            },
        },
    }


def _arrange_meeting(container: dict[str, Any], *, first: str) -> None:
    """Tells the trainer where all meet; Kubernetes itself tells each pod its number, JOB_COMPLETION_INDEX."""
    variables = {"MASTER_ADDR": first, "MASTER_PORT": str(MEETING_PORT)}
    container["env"] += [{"name": name, "value": value} for name, value in variables.items()]
    container["ports"].append({"name": "meeting", "containerPort": MEETING_PORT})


def _all_or_nothing(job: dict[str, Any], nodes: int) -> dict[str, Any]:
    """Returns the Job with a pod for each node, which fails as soon as one of them does.

    It has no deadline: its own would begin anew with each restart. The operator keeps the deadline (`steps.train`).
    """
    rules = [rule | {"action": "FailJob"} for rule in job["podFailurePolicy"]["rules"]]
    gang = {"completions": nodes, "parallelism": nodes, "backoffLimit": 0, "podFailurePolicy": {"rules": rules}}
    return {key: value for key, value in job.items() if key != "activeDeadlineSeconds"} | gang


def _restart_rules() -> list[dict[str, Any]]:
    """Returns what a failed Job means; the first rule that fits counts, and without one a restart is used up.

    Source: the message of a Job that failed by its podFailurePolicy, Kubernetes job_controller, pod_failure_policy.go.
    """
    by_policy = {"onJobFailureReasons": ["PodFailurePolicy"]}
    mistake = {"onJobFailureMessagePatterns": [f"failed with exit code {int(ExitCode.USER_ERROR)} "]}
    return [
        {"name": "mistake", "action": "FailJobSet", **by_policy, **mistake},
        {"name": "disruption", "action": "RestartJobSetAndIgnoreMaxRestarts", **by_policy},
    ]
