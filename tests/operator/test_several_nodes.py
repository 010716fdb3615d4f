"""Training on several nodes: the JobSet that is made, and what the plan reads from it. And Kueue's queues."""

from __future__ import annotations

from typing import Any

import pytest

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import DeleteJob, DeletePod, PatchJob
from skill_operator.manifests.job import train_job
from skill_operator.manifests.jobset import train_jobset, train_workload
from tests.operator import raw
from tests.operator.seen import assert_failed, trained, training, truth, why
from tests.operator.sim import IMAGES, Sim
from tests.operator.test_manifests import TEMPLATE, made

KUEUE = {"labels": {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high", "other": "x"}}


def two_nodes(**spec: Any) -> raw.Raw:
    return raw.update(serving=False, **raw.merged({"training": {"nodes": 2, "gpusPerNode": 8}}, spec))


def both_run() -> Sim:
    """An update whose two trainers run."""
    sim = trained(two_nodes())
    sim.pod("train", raw.running(), index=1)
    sim.settle()
    return sim


def queued(body: raw.Raw) -> Sim:
    """An update whose Job or JobSet waits in a queue of Kueue's, which has suspended it."""
    sim = Sim(raw.merged(body, {"metadata": KUEUE}))
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.job("train")["spec"]["suspend"] = True
    return sim


def workload(sim: Sim, *conditions: raw.Raw, evictions: int = 0) -> None:
    """What Kueue says of the training."""
    stats = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": evictions}]} if evictions else {}
    metadata = {"labels": {"kueue.x-k8s.io/job-uid": sim.job("train")["metadata"]["uid"]}}
    sim.workloads = [{"metadata": metadata, "status": {"conditions": [*conditions], "schedulingStats": stats}}]


def said(kind: str, truth: str, reason: str, message: str = "") -> raw.Raw:
    return {"type": kind, "status": truth, "reason": reason, "message": message}


# -- the JobSet -----------------------------------------------------------------------------------------------------


def test_every_pod_of_a_jobset_has_the_time_to_save_that_the_user_gives_it():
    update, spec = made(training={"nodes": 2, "gpusPerNode": 8, "gracePeriodSeconds": 900})
    (pods,) = train_jobset(update, spec, IMAGES)["spec"]["replicatedJobs"]
    assert pods["template"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 900


def test_one_node_trains_as_a_job_and_several_as_a_jobset():
    update, spec = made()
    assert train_workload(update, spec, IMAGES) == train_job(update, spec, IMAGES)
    update, spec = made(training={"nodes": 2})
    assert train_workload(update, spec, IMAGES)["kind"] == "JobSet"


def test_each_pod_of_a_jobset_is_as_the_pod_of_one_node():
    settings = {"template": TEMPLATE, "resources": {"limits": {"rdma/rdma_shared_device_a": 1}}}
    one, several = (made(training={"nodes": nodes, "gpusPerNode": 4, **settings}) for nodes in (1, 3))
    job, jobset = train_job(*one, IMAGES), train_jobset(*several, IMAGES)
    (replicated,) = jobset["spec"]["replicatedJobs"]
    inner = replicated["template"]["spec"]
    assert (replicated["replicas"], inner["completions"], inner["parallelism"]) == (1, 3, 3)
    assert inner["template"]["metadata"] == job["spec"]["template"]["metadata"]
    ours, alone = inner["template"]["spec"], job["spec"]["template"]["spec"]
    (container,), (single,) = ours.pop("containers"), alone.pop("containers")
    assert ours == alone
    for same in ("image", "args", "resources", "volumeMounts", "securityContext"):
        assert container[same] == single[same]
    assert container["resources"]["limits"]["rdma/rdma_shared_device_a"] == "1"


def test_pods_of_a_jobset_meet_at_the_first_one():
    update, spec = made(training={"nodes": 2}, metadata={"name": "x" * 63})
    jobset = train_jobset(update, spec, IMAGES)
    name = jobset["metadata"]["name"]
    assert len(f"{name}-node-0-9999-abcde") <= 63
    assert jobset["spec"]["network"] == {
        "enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": name,
    }  # fmt: skip
    (container,) = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == (f"{name}-node-0-0.{name}", "29500")


def test_any_failure_ends_all_pods_and_the_jobset_knows_what_it_means():
    update, spec = made(training={"nodes": 2, "failurePolicy": {"maxRestarts": 7}})
    jobset = train_jobset(update, spec, IMAGES)["spec"]
    inner = jobset["replicatedJobs"][0]["template"]["spec"]
    assert inner["backoffLimit"] == 0
    assert {rule["action"] for rule in inner["podFailurePolicy"]["rules"]} == {"FailJob"}
    assert "activeDeadlineSeconds" not in inner
    policy = jobset["failurePolicy"]
    assert (policy["maxRestarts"], policy["restartStrategy"]) == (7, "BlockingRecreate")
    assert [rule["action"] for rule in policy["rules"]] == ["FailJobSet", "RestartJobSetAndIgnoreMaxRestarts"]


def test_queue_of_kueue_is_named_on_the_jobset_only():
    update, spec = made(training={"nodes": 2}, metadata=KUEUE)
    jobset = train_jobset(update, spec, IMAGES)
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
    template = jobset["spec"]["replicatedJobs"][0]["template"]
    for metadata in (template["metadata"], template["spec"]["template"]["metadata"]):
        assert not any("kueue" in label for label in metadata["labels"])


# -- what the plan makes of it ----------------------------------------------------------------------------------------


def test_cluster_without_jobset_is_told_how_to_get_it_and_the_update_goes_on_by_itself():
    sim = Sim(two_nodes())
    sim.serves_jobset = False
    planned = sim.settle()
    assert (sim.status.phase, why(sim, "Stalled")[0], planned.requeue_after) == ("Pending", "JobSetMissing", 60)
    assert "install" in why(sim)[1]
    assert sim.jobs == {}
    sim.serves_jobset = True
    sim.settle()
    assert "Stalled" not in truth(sim)
    assert sim.has_job("check")


def test_the_first_pod_speaks_for_all():
    sim = both_run()
    sim.pods[-1]["status"] = raw.said(raw.outcome(Step.TRAIN, message="the second"))
    sim.pods[-2]["status"] = raw.said(raw.outcome(Step.TRAIN, message="the first"))
    sim.job("train")["status"] = {"conditions": [raw.job_condition("Completed")]}
    sim.settle()
    assert why(sim, "Trained")[1] == "the first"
    assert sim.status.published is not None


def test_restarts_of_all_together_are_told_from_preemptions():
    sim = both_run()
    sim.job("train")["status"] = {"restarts": 3, "restartsCountTowardsMax": 1}
    sim.settle()
    seen = sim.status.training
    assert seen is not None
    assert (seen.restarts, seen.preemptions, seen.attempt) == (1, 2, 4)


def test_mistake_is_told_by_the_pod_that_found_it():
    sim = both_run()
    sim.pods[-1]["status"] = raw.said(raw.outcome(Step.TRAIN, Result.FAILED, "DataInvalid", "line 2: no prompt"), 42)
    sim.pods[-2]["status"] = raw.ended(1, "connection closed by peer")
    job = sim.job("train")
    failed = {"reason": "FailJobSetFailurePolicyAction", "message": "jobset failed"}
    job["status"] = {"conditions": [raw.job_condition("Failed", **failed)]}
    sim.inside[job["metadata"]["name"]] = [raw.job_condition("Failed", "PodFailurePolicy", "exit code 42")]
    sim.settle()
    assert_failed(sim, "Failed", "DataInvalid", "line 2")


def test_too_many_restarts_are_one_reason_for_job_and_jobset():
    sim = both_run()
    sim.pods[-1]["status"] = raw.ended(1, "Segmentation fault")
    job = sim.job("train")
    job["status"] = {
        "restarts": 3,
        "restartsCountTowardsMax": 3,
        "conditions": [raw.job_condition("Failed", "ReachedMaxRestarts", "jobset failed")],
    }
    sim.settle()
    assert_failed(sim, "Failed", "RetriesExhausted", "ended 4 times", "Segmentation fault")
    assert sim.status.training is not None
    assert sim.status.training.restarts == 3


def test_deadline_of_a_jobset_is_kept_by_the_operator_and_may_grow():
    sim = both_run()
    sim.job("train")["metadata"]["creationTimestamp"] = raw.to_rfc3339(sim.now)
    sim.body["spec"]["training"]["activeDeadlineSeconds"] = 100
    sim.now += 101
    sim.body["spec"]["training"]["activeDeadlineSeconds"] = 200
    sim.settle()
    assert sim.status.phase == "Training"
    sim.now += 100
    sim.settle()
    assert_failed(sim, "Failed", "DeadlineExceeded", "JobSet", "200 s")
    assert PatchJob("JobSet", sim.job("train")["metadata"]["name"], {"spec": {"suspend": True}}) in sim.done


def test_heartbeat_is_the_first_pod_s():
    sim = both_run()
    training(sim, heartbeat=901)
    planned = sim.look()
    assert [type(action) for action in planned.actions] == [DeletePod]
    assert "-0-" in planned.actions[0].name  # type: ignore[union-attr]


def test_pod_that_finds_no_node_is_shown_though_others_run():
    sim = trained(two_nodes())
    waiting = raw.pod_status(phase="Pending")
    waiting["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes have GPUs"}
    ]
    sim.pod("train", waiting, index=1)
    sim.settle()
    assert "0/3 nodes have GPUs" in why(sim)[1]


def test_suspended_update_gives_all_nodes_back():
    sim = both_run()
    sim.body["spec"]["suspend"] = True
    sim.settle()
    assert [action.kind for action in sim.done if isinstance(action, DeleteJob)] == ["JobSet"]
    assert not [pod for pod in sim.pods if "train" in pod["metadata"]["name"]]


# -- Kueue ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [raw.update(serving=False), two_nodes()], ids=["Job", "JobSet"])
def test_reason_of_kueue_is_the_status_s(body: raw.Raw):
    sim = queued(body)
    sim.settle()
    assert (sim.status.phase, why(sim)[0]) == ("Queued", "WaitingForAdmission")
    workload(sim, said("QuotaReserved", "False", "Pending", "insufficient unused quota for cpu, 2 more needed"))
    planned = sim.settle()
    assert why(sim)[1] == "queue gpus: insufficient unused quota for cpu, 2 more needed"
    assert planned.requeue_after == 10
    workload(sim, said("QuotaReserved", "True", "QuotaReserved"), said("Admitted", "True", "Admitted"))
    sim.job("train")["spec"]["suspend"] = False
    sim.pod("train", raw.running())
    sim.settle()
    assert (sim.status.phase, why(sim)[0]) == ("Training", "Training")


def test_eviction_counts_as_preemption_and_not_twice():
    sim = queued(raw.update(serving=False))
    sim.job("train")["spec"]["suspend"] = False
    workload(sim, said("Admitted", "True", "Admitted"))
    stopped = sim.pod("train", raw.running())
    sim.settle()
    stopped["status"] = raw.said(raw.outcome(Step.TRAIN, Result.PREEMPTED, "Preempted"), 75)
    stopped["metadata"]["deletionTimestamp"] = raw.to_rfc3339(sim.now)
    sim.job("train")["spec"]["suspend"] = True
    preempted = said("Evicted", "True", "Preempted", "Preempted to accommodate a workload in the ClusterQueue")
    workload(sim, preempted, said("QuotaReserved", "False", "Pending"), evictions=1)
    sim.settle()
    seen = sim.status.training
    assert seen is not None
    assert (seen.preemptions, seen.restarts) == (1, 0)
    assert "evicted (Preempted): Preempted to accommodate" in why(sim)[1]


def test_what_stands_in_a_queue_is_deleted_and_never_suspended_by_us():
    sim = queued(raw.update(serving=False))
    sim.job("train")["spec"]["suspend"] = False
    workload(sim, said("Admitted", "True", "Admitted"))
    sim.pod("train", raw.ended(137, reason="OOMKilled"))
    sim.settle()
    assert sim.status.phase == "Failed"
    assert not any(isinstance(action, PatchJob) for action in sim.done)
    assert [action.kind for action in sim.done if isinstance(action, DeleteJob)] == ["Job"]
