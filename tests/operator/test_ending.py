"""Ends and their aftermath: deleted, reverted, erased, settled."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import (
    AddFinalizer,
    DeleteJob,
    RemoveFinalizer,
)
from skill_operator.api import API_VERSION, FINALIZER
from skill_operator.conditions import is_settled
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT, PREVIOUS
from tests.operator.seen import neighbour, promote_config, served, trained, truth, why
from tests.operator.sim import Sim


def test_deleted_update_that_rolls_nothing_is_let_go_at_once():
    sim = trained()
    sim.delete()
    done = len(sim.done)
    planned = sim.look(write=False)
    assert (planned.requeue_after, len(sim.done)) == (None, done)


def test_update_that_is_deleted_in_its_rollout_goes_back_first():
    sim = served()
    sim.until_rolled()
    sim.delete()
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == ("", [FINALIZER])
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    ("result", "annotation", "finalizers"),
    [(Result.SUCCEEDED, CANDIDATE, []), (Result.REJECTED, "", [FINALIZER])],
)
def test_update_that_is_deleted_while_promoting_waits_for_the_answer(
    result: Result, annotation: str, finalizers: list[str]
):
    sim = served()
    sim.until_promoting()
    sim.pod("promote", raw.running())
    sim.delete()
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (CANDIDATE, [FINALIZER])
    assert not any(isinstance(action, DeleteJob) for action in sim.done), "it may have moved the head already"
    sim.finish("promote", raw.outcome(Step.PROMOTE, result, "" if result is Result.SUCCEEDED else "OutputMismatch"))
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (annotation, finalizers)


def test_update_that_is_deleted_before_its_promotion_started_goes_back_at_once():
    sim = served()
    sim.until_promoting()
    sim.pod("promote", raw.pod_status(phase="Pending", waiting={"reason": "ImagePullBackOff"}))
    sim.delete()
    sim.look()
    assert isinstance(sim.done[-1], DeleteJob)
    assert sim.annotation == CANDIDATE
    sim.settle()
    assert sim.annotation == ""


@pytest.mark.parametrize(
    ("result", "annotation"), [(Result.SUCCEEDED, CANDIDATE), (Result.REJECTED, "")], ids=["yes", "no"]
)
def test_promotion_that_is_taken_away_in_the_middle_of_a_deletion_is_asked_again(result: Result, annotation: str):
    """As a deletion in the foreground does: the garbage collector takes the Jobs while a finalizer holds the update."""
    sim = served()
    sim.until_promoting()
    sim.pod("promote", raw.running())
    sim.delete()
    sim.settle()
    sim.jobs.clear()
    sim.pods.clear()
    sim.settle()
    assert (sim.annotation, sim.has_job("promote")) == (CANDIDATE, True)
    sim.finish("promote", raw.outcome(Step.PROMOTE, result, "" if result is Result.SUCCEEDED else "OutputMismatch"))
    sim.settle()
    assert sim.annotation == annotation


def test_update_that_is_deleted_after_its_promotion_keeps_the_new_weights():
    sim = served()
    sim.until_promoting()
    sim.finish("promote")
    sim.delete()
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (CANDIDATE, [])


def test_finalizer_is_let_go_when_the_rollback_takes_too_long():
    sim = served()
    sim.until_rolled()
    sim.delete()
    sim.settle()
    sim.now += 1801
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_finalizer_is_let_go_even_when_the_promote_step_does_not_end():
    sim = served()
    sim.until_promoting()
    sim.pod("promote", raw.running())
    sim.delete()
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (CANDIDATE, [FINALIZER])
    sim.now += 1801
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_revert_takes_the_head_back_first_and_then_the_pods():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.body["metadata"]["generation"] = 2
    assert not is_settled(sim.body)
    sim.settle()
    config = promote_config(sim, "revert")
    assert (config.version, config.digest, config.parent_digest, config.pods) == (*PARENT, CHILD[1], ())
    assert (sim.status.phase, sim.annotation) == ("Reverting", CANDIDATE)
    sim.finish("revert")
    sim.settle()
    assert sim.annotation == PREVIOUS
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert (sim.status.phase, why(sim)[0], truth(sim)["Succeeded"]) == ("Reverted", "Reverted", "True")
    assert is_settled(sim.body)


def reverting() -> Sim:
    """An update whose head is being moved back."""
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    return sim


def brought_back(sim: Sim) -> None:
    sim.finish("revert")
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()


def test_revert_holds_the_finalizer_until_head_and_pods_are_back():
    sim = reverting()
    assert sim.body["metadata"]["finalizers"] == [FINALIZER]
    brought_back(sim)
    assert (sim.status.phase, sim.body["metadata"]["finalizers"]) == ("Reverted", [])


def test_revert_that_is_refused_lets_go():
    sim = reverting()
    sim.finish("revert", raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved"))
    sim.settle()
    assert (why(sim)[0], sim.body["metadata"]["finalizers"]) == ("RevertRefused", [])


def test_update_that_is_deleted_in_its_revert_brings_the_pods_back_first():
    """The head may be back already: nobody else would bring the pods to it."""
    sim = reverting()
    sim.delete()
    sim.finish("revert")
    sim.settle()
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (PREVIOUS, [FINALIZER])
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_update_whose_revert_is_taken_away_by_its_deletion_brings_head_and_pods_back_all_the_same():
    sim = reverting()
    sim.pod("revert", raw.running())
    sim.settle()
    sim.delete()
    sim.jobs.clear()
    sim.pods.clear()
    sim.settle()
    assert (sim.annotation, sim.has_job("revert"), sim.body["metadata"]["finalizers"]) == (CANDIDATE, True, [FINALIZER])
    brought_back(sim)
    assert (sim.annotation, sim.body["metadata"]["finalizers"]) == (PREVIOUS, [])


def test_deleted_update_whose_revert_does_not_end_is_let_go():
    sim = reverting()
    sim.delete()
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == [FINALIZER]
    sim.now += 1801
    sim.settle()
    assert sim.body["metadata"]["finalizers"] == []


def test_revert_whose_status_is_erased_goes_back_to_the_parent():
    sim = reverting()
    sim.body["status"] = {}
    brought_back(sim)
    assert (sim.status.phase, sim.annotation) == ("Reverted", PREVIOUS)


def test_revert_waits_for_an_update_that_rolls_the_same_target():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.neighbours = (neighbour(rolling="team/Deployment/support-llm", is_active=True),)
    sim.body["spec"]["revert"] = True
    planned = sim.settle()
    assert (sim.status.phase, sim.has_job("revert"), planned.requeue_after) == ("Reverting", False, 5)
    assert "team/other" in why(sim)[1]
    sim.neighbours = (neighbour(rolling="team/Deployment/support-llm", is_active=True, is_reverting=True),)
    sim.settle()
    assert sim.has_job("revert"), "two that go back never wait for each other: the head decides"


def test_revert_is_refused_when_a_later_update_stands_on_this_one():
    sim = served()
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    answer = raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved", "the head is 000043")
    sim.fail("revert", raw.said(answer, 42), "PodFailurePolicy")
    sim.settle()
    assert (why(sim, "Stalled")[0], sim.annotation) == ("RevertRefused", CANDIDATE)
    assert "000043" in why(sim)[1]
    assert truth(sim)["Succeeded"] == "True"
    assert is_settled(sim.body)


def refuse_revert(sim: Sim) -> None:
    answer = raw.outcome(Step.PROMOTE, Result.FAILED, "HeadMoved", "the head is 000043")
    sim.fail("revert", raw.said(answer, 42), "PodFailurePolicy")


def test_refused_revert_can_be_asked_for_again():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    refuse_revert(sim)
    sim.settle()
    assert "set spec.revert to false" in why(sim)[1]
    sim.body["spec"]["revert"] = False
    sim.settle()
    assert (truth(sim)["Ready"], "Reverted" in truth(sim), why(sim)[0]) == ("True", False, "Promoted")
    sim.body["spec"]["revert"] = True
    sim.settle()
    assert sim.status.phase == "Reverting"
    sim.finish("revert")
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.status.phase == "Reverted"


def test_revert_that_has_begun_is_finished_whatever_the_spec_says():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.body["spec"]["revert"] = False  # a GitOps controller, for one
    sim.settle()
    assert (sim.status.phase, truth(sim)["Ready"], is_settled(sim.body)) == ("Reverting", "False", False)
    sim.finish("revert")
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert (sim.status.phase, sim.annotation, is_settled(sim.body)) == ("Reverted", PREVIOUS, True)


def test_revert_that_has_not_begun_is_forgotten_when_it_is_not_wanted():
    sim = served()
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.neighbours = (neighbour(rolling="team/Deployment/support-llm", is_active=True),)
    sim.settle()
    sim.body["spec"]["revert"] = False
    sim.settle()
    assert (sim.status.phase, truth(sim)["Ready"], why(sim)[0]) == ("Succeeded", "True", "Promoted")
    assert is_settled(sim.body)


def test_revert_waits_for_a_store_that_is_away():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    for _ in range(9):
        sim.fail("revert", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "StoreUnavailable", "s3 is away"), 1))
        planned = sim.settle()
        assert (sim.status.phase, sim.annotation, "s3 is away" in why(sim)[1]) == ("Reverting", CANDIDATE, True)
        sim.now += planned.requeue_after or 0
        sim.settle()
    sim.finish("revert")
    sim.settle()
    assert sim.annotation == PREVIOUS


def test_revert_whose_answer_is_always_lost_is_refused_in_the_end():
    sim = served()
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    for _ in range(5):
        sim.finish("revert", keep_pod=False)
        sim.now += 300
        sim.settle()
    assert why(sim, "Stalled")[0] == "RevertRefused"


def test_revert_whose_pods_do_not_come_back_is_loud_and_goes_on():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.finish("revert")
    sim.settle()
    sim.roll(message=raw.fetch_failed("NotFound", "000041 is gone"), fetch_code=1, ready=False)
    sim.now += 1801
    sim.settle()
    assert why(sim, "Stalled")[0] == "RollbackFailed"
    assert "000041 is gone" in why(sim)[1]
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert (sim.status.phase, truth(sim)["Ready"]) == ("Reverted", "True")


def test_revert_of_a_target_without_pods_is_done_when_the_next_ones_will_be_right():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_done()
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.finish("revert")
    sim.settle()
    scale_to_zero(sim)
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("Reverted", PREVIOUS)
    assert "0 replicas" in why(sim)[1]


def scale_to_zero(sim: Sim) -> None:
    assert sim.deployment is not None
    sim.deployment["spec"]["replicas"] = 0
    sim.roll()


def test_status_that_is_erased_in_the_rollout_is_learnt_again_with_the_parent_to_go_back_to():
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS))
    sim.until_rolled()
    sim.body["status"] = {}
    sim.settle()
    assert sim.status.rollout is not None
    assert (sim.status.rollout.previous, sim.status.phase) == (PREVIOUS, "Soaking")
    sim.serving[0]["status"]["containerStatuses"][0]["restartCount"] = 3
    sim.settle()
    assert sim.annotation == PREVIOUS


def test_final_update_is_never_taken_up_again():
    sim = served()
    sim.until_done()
    done = len(sim.done)
    sim.jobs.clear()
    sim.pods.clear()
    sim.deployment = None
    sim.body["spec"]["approved"] = True
    sim.body["metadata"]["generation"] = 2
    sim.settle()
    assert (len(sim.done), sim.status.phase, sim.status.observed_generation) == (done, "Succeeded", 2)


@pytest.mark.parametrize("phase", ["", "Training", "Failed"])
def test_final_update_whose_phase_was_overwritten_gets_its_own_back(phase: str):
    sim = served()
    sim.until_done()
    sim.body["status"]["phase"] = phase
    assert not is_settled(sim.body)
    sim.settle()
    assert (sim.status.phase, is_settled(sim.body)) == ("Succeeded", True)


@pytest.mark.parametrize("phase", ["", "Dancing"])
def test_deleted_update_whose_phase_was_overwritten_is_let_go(phase: str):
    sim = served()
    sim.until_done()
    sim.body["metadata"]["finalizers"] = [FINALIZER]
    sim.body["status"]["phase"] = phase
    sim.settle()
    assert (sim.body["metadata"]["finalizers"], sim.status.phase) == ([], "Succeeded")


def test_final_update_that_cannot_be_read_any_more_stays_as_it_ended():
    sim = served()
    sim.until_done()
    before = truth(sim)
    sim.body["spec"]["method"] = {"type": "of a later version"}
    sim.body["metadata"] |= {"generation": 2, "finalizers": [FINALIZER]}
    sim.settle()
    assert (truth(sim), sim.status.phase, sim.body["metadata"]["finalizers"]) == (before, "Succeeded", [])
    assert is_settled(sim.body)


def test_finalizer_is_held_during_the_rollout_only():
    sim = served()
    sim.until_done()
    held = [type(action) for action in sim.done if isinstance(action, AddFinalizer | RemoveFinalizer)]
    assert held == [AddFinalizer, RemoveFinalizer]


def test_children_belong_to_the_update():
    sim = served()
    sim.until_promoting()
    for job in sim.jobs.values():
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["apiVersion"], owner["controller"]) == (raw.UID, API_VERSION, True)
