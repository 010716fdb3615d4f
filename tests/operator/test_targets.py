"""What each kind of serving target says, and what becomes of it: unfit, given up, held, out of reach."""

from __future__ import annotations

from typing import Any

import pytest

from skill_operator.actions import DeletePod
from skill_operator.observed import Target
from skill_operator.targets.read import kind_of, target
from tests.operator import raw
from tests.operator.raw import CANDIDATE, PARENT, Raw, merged
from tests.operator.seen import assert_failed, served, truth, why


def read(kind: str, document: Raw, pods: list[Raw] | None = None, behind: Raw | None = None) -> Target:
    of = kind_of(kind)
    return target(of, document, of.read(document, behind), pods or [], "server")


# -- StatefulSet ----------------------------------------------------------------------------------------------------


def stateful_set(**changes: Any) -> Raw:
    counts = {"observedGeneration": 1, "replicas": 2, "availableReplicas": 2}
    status = counts | {"currentRevision": "a", "updateRevision": "a"}
    document = raw.deployment(weights=CANDIDATE) | {"kind": "StatefulSet", "status": status}
    return merged(document, changes)


def test_stateful_set_is_settled_when_its_newest_revision_is_everywhere():
    seen = read("StatefulSet", stateful_set())
    assert (seen.is_settled, seen.weights, seen.is_wired, seen.containers) == (True, CANDIDATE, True, ("server",))
    for change in (
        {"status": {"updateRevision": "b", "updatedReplicas": 1}},
        {"status": {"availableReplicas": 1}},
        {"status": {"replicas": 1}},
        {"metadata": {"generation": 2}},
        {"spec": {"replicas": 3}},
    ):
        seen = read("StatefulSet", stateful_set(**change))
        assert (seen.is_settled, bool(seen.state)) == (False, True), change


@pytest.mark.parametrize(
    ("strategy", "word"),
    [
        ({"type": "OnDelete"}, "RollingUpdate"),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}, "partition 1"),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, ""),
    ],
)
def test_stateful_set_that_would_keep_old_pods_is_unfit(strategy: Raw, word: str):
    unfit = read("StatefulSet", stateful_set(spec={"updateStrategy": strategy})).unfit
    assert (word in unfit, bool(unfit)) == (True, bool(word))


def test_stateful_set_keeps_broken_pods_unless_it_manages_them_in_parallel():
    assert read("StatefulSet", stateful_set()).keeps_broken_pods
    assert not read("StatefulSet", stateful_set(spec={"podManagementPolicy": "Parallel"})).keeps_broken_pods


# -- what becomes of it ---------------------------------------------------------------------------------------------


def test_unfit_target_waits_for_a_person_before_anything_is_written():
    sim = served()
    sim.says = {"unfit": "its partition is 1: set 0"}
    sim.until_published()
    assert (why(sim, "Stalled")[0], sim.annotation, sim.status.rollout) == ("TargetUnfit", "", None)
    assert why(sim)[1] == "Deployment support-llm: its partition is 1: set 0"
    sim.says = {}
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_target_that_its_own_controller_gives_up_is_taken_back():
    sim = served()
    sim.until_published()
    sim.says = {"given_up": "was given up by its own controller: aborted"}
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", "")
    sim.says = {}
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "RolloutAborted", "aborted")


def test_target_that_was_given_up_before_is_no_fault_of_the_candidate():
    sim = served()
    sim.says = {"given_up": "was given up by its own controller", "is_settled": False, "state": "Degraded"}
    sim.until_published()
    assert (why(sim)[0], sim.annotation) == ("TargetBusy", "")


def test_time_does_not_run_while_the_target_holds_on_purpose():
    sim = served()
    sim.until_published()
    sim.says = {"held": "CanaryPauseStep", "is_settled": False, "state": "Paused"}
    for _ in range(5):
        sim.now += 1000
        sim.settle()
        assert sim.status.phase == "RollingOut"
    sim.says = {"is_settled": False, "state": "Progressing"}
    sim.now += 1801
    sim.settle()
    assert why(sim)[1].startswith("ProgressDeadline")


@pytest.mark.parametrize("keeps", [False, True])
def test_broken_pods_go_on_the_way_back_where_nothing_else_would_replace_them(*, keeps: bool):
    sim = served()
    sim.says = {"keeps_broken_pods": keeps}
    sim.until_published()
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.serving[1]["metadata"]["annotations"] = {}  # the other one has been left as it was
    sim.settle()
    deleted = [action.name for action in sim.done if isinstance(action, DeletePod)]
    assert deleted == (["support-llm-0"] if keeps else [])


def test_kind_that_cannot_be_seen_is_waited_for_and_nothing_is_concluded():
    sim = served()
    sim.out_of_reach = "this cluster does not serve LeaderWorkerSet: install it"
    sim.until_published()
    assert (sim.status.phase, why(sim, "Stalled")) == ("RollingOut", ("TargetOutOfReach", sim.out_of_reach))
    assert truth(sim)["Succeeded"] == "Unknown"
    sim.out_of_reach = ""
    sim.until_rolled()
    sim.out_of_reach = "the operator may not read it"
    sim.settle()
    assert why(sim, "Stalled")[0] == "TargetOutOfReach"
    sim.out_of_reach = ""
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_deletion_waits_for_a_target_that_cannot_be_seen_only_for_a_while():
    sim = served()
    sim.until_rolled()
    sim.out_of_reach = "the operator may not read it"
    sim.delete()
    sim.settle()
    assert sim.body["metadata"]["finalizers"]
    sim.now += 1801
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_way_back_waits_for_a_target_that_cannot_be_seen():
    sim = served()
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.out_of_reach = "the operator may not read it"
    sim.finish("revert")
    sim.settle()
    assert (sim.status.phase, why(sim)[0], sim.annotation) == ("Reverting", "TargetOutOfReach", CANDIDATE)
    sim.out_of_reach = ""
    sim.settle()
    assert sim.annotation == ""
