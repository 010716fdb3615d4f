"""How long a rollout may take: its time comes anew with every pod beyond the most there have been, else it ends."""

from __future__ import annotations

from skill_contract.outcome import Result
from tests.operator import raw
from tests.operator.live import LiveSim
from tests.operator.raw import CANDIDATE, CHILD, PARENT, PREVIOUS, Step
from tests.operator.seen import why
from tests.operator.sim import Sim

DEADLINE = 1800
"""Seconds: the CRD's default."""


def rolled_on(sim: Sim, index: int) -> None:
    """The controller replaces one pod more."""
    sim.serving[index] = raw.serving_pod(index, CANDIDATE, raw.serving_status(raw.fetched(CANDIDATE, CHILD[1])))
    sim.settle()


def of_many(replicas: int) -> Sim:
    """A rollout whose first pod is proved, and whose others follow."""
    sim = Sim(deployment=raw.deployment(weights=PREVIOUS, replicas=replicas))
    sim.until_held()
    sim.finish("prove")
    sim.settle()
    sim.serving.pop()
    return sim


def test_many_pods_that_follow_one_after_the_other_have_time_for_each():
    sim = of_many(20)
    for index in range(19):
        sim.now += 110
        rolled_on(sim, index)
        assert sim.status.phase == "RollingOut", why(sim)
    sim.now += 110
    sim.roll()
    sim.settle()
    assert sim.status.phase == "Soaking"


def test_rollout_that_comes_no_further_ends_a_deadline_after_its_last_pod():
    sim = of_many(4)
    sim.now += DEADLINE - 1
    rolled_on(sim, 0)
    sim.now += DEADLINE - 1
    rolled_on(sim, 1)
    sim.now += DEADLINE
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.now += 1
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", PREVIOUS)
    assert "no further pod was verified within 1800 s: 2/4 verified" in why(sim)[1]


def test_many_pods_that_go_back_one_after_the_other_have_time_for_each():
    sim = of_many(20)
    sim.roll()
    sim.settle()
    sim.serving[0]["status"]["containerStatuses"][0]["restartCount"] = 3
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", PREVIOUS)
    for index in range(19):
        sim.now += 110
        sim.serving[index] = raw.serving_pod(index, PREVIOUS, raw.serving_status(raw.fetched(PREVIOUS, PARENT[1])))
        sim.settle()
        assert why(sim)[0] == "RollingBack", index
    sim.now += DEADLINE + 1
    sim.settle()
    assert why(sim, "Stalled")[0] == "RollbackFailed"


def test_pod_that_goes_and_comes_back_gives_no_time():
    sim = of_many(4)
    rolled_on(sim, 0)
    rolled_on(sim, 1)
    for _ in range(DEADLINE // 100):
        lost = sim.serving.pop(1)
        sim.now += 50
        sim.settle()
        sim.serving.insert(1, lost)
        sim.now += 50
        sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.now += 1
    sim.settle()
    assert sim.status.phase == "RollingBack"


def test_live_pods_are_counted_anew_once_they_are_switched():
    """All of them had loaded it already: what is counted from there on is who answers with it."""
    sim = LiveSim(PREVIOUS)
    sim.until_loaded()
    sim.finish("prove")
    sim.settle()
    sim.now += DEADLINE - 1
    sim.sync("support-llm-0")
    sim.settle()
    sim.now += DEADLINE - 1
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.sync()
    sim.settle()
    assert sim.status.phase == "Soaking"


# -- the soak ---------------------------------------------------------------------------------------------------------


def soaking(seconds: int = 30, limit: int = 60) -> Sim:
    """All pods on the candidate; there are 3 * (30 + 60) s for soaks in all."""
    body = raw.update()
    body["spec"]["serving"] |= {"soakSeconds": seconds, "progressDeadlineSeconds": limit}
    sim = Sim(body, raw.deployment(weights=PREVIOUS))
    sim.until_rolled()
    return sim


def blink(sim: Sim, index: int, seconds: float) -> None:
    """One pod is away for some seconds."""
    lost = sim.serving.pop(index)
    sim.settle()
    sim.now += seconds
    sim.serving.insert(index, lost)
    sim.settle()


def test_soak_that_is_broken_again_and_again_ends_with_the_pods_that_broke_it():
    sim = soaking()
    for times in range(13):
        blink(sim, min(times, 1), 5)
        assert sim.status.phase == "Soaking", times
        sim.now += 15
        sim.settle()
    sim.now += 11
    sim.serving.pop(1)
    sim.settle()
    assert (sim.status.phase, sim.annotation) == ("RollingBack", PREVIOUS)
    words = "SoakUnsteady: the soak of 30 s was broken 14 times, because pods went away: "
    words += "support-llm-1 13 times, support-llm-0 1 times"
    assert why(sim)[1].startswith(words)


def test_soak_that_is_broken_at_its_worst_moment_has_time_for_one_that_holds():
    sim = soaking()
    sim.now += 29
    blink(sim, 0, 60)
    sim.now += 30
    sim.settle()
    assert sim.has_job("promote")


def test_pod_that_does_not_come_back_in_time_ends_it_as_ever():
    sim = soaking()
    sim.serving.pop()
    sim.settle()
    sim.now += 61
    sim.settle()
    assert why(sim)[1].startswith("ProgressDeadline")


def scaled(sim: Sim, replicas: int, *, ready: bool = True) -> None:
    """An autoscaler wants another number of pods."""
    assert sim.deployment is not None
    sim.deployment["spec"]["replicas"] = replicas
    sim.serving = sim.serving[:replicas]
    for index in range(len(sim.serving), replicas):
        status = raw.serving_status(raw.fetched(CANDIDATE, CHILD[1]), ready=ready)
        sim.serving.append(raw.serving_pod(index, CANDIDATE, status))
    up = sum(pod["status"]["containerStatuses"][0]["ready"] for pod in sim.serving)
    sim.deployment["status"] |= {
        "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": up, "availableReplicas": up,
    }  # fmt: skip
    sim.settle()


def test_pods_that_an_autoscaler_adds_or_takes_do_not_begin_the_soak_anew():
    sim = soaking()
    began = sim.status.rollout.verified_at
    sim.now += 20
    scaled(sim, 3, ready=False)
    assert (sim.status.phase, sim.status.rollout.pods_verified) == ("Soaking", "2/3")
    sim.now += 5
    scaled(sim, 1)
    assert (sim.status.phase, sim.status.rollout.verified_at) == ("Soaking", began)
    sim.now += 5
    sim.settle()
    assert sim.has_job("promote")


def test_pod_that_came_in_the_soak_is_waited_for_before_the_head_moves():
    sim = soaking()
    scaled(sim, 3, ready=False)
    sim.now += 31
    sim.settle()
    assert (sim.status.phase, sim.has_job("promote")) == ("Soaking", False)
    assert "2/3 pods verified; waits for those that came in the soak" in why(sim)[1]
    sim.roll()
    sim.settle()
    assert sim.has_job("promote")


def test_pod_that_came_in_the_soak_is_not_waited_for_without_end():
    sim = soaking()
    scaled(sim, 3, ready=False)
    sim.now += 270
    sim.settle()
    assert sim.status.phase == "Soaking"
    sim.now += 1
    sim.settle()
    assert sim.status.phase == "RollingBack"


def test_soaks_before_a_night_without_pods_do_not_count_after_it():
    sim = soaking()
    sim.serving.pop()
    sim.settle()
    scaled(sim, 0)
    sim.now += 8 * 3600
    sim.settle()
    scaled(sim, 2)
    assert sim.status.phase == "Soaking"
    sim.now += 20
    blink(sim, 0, 59)
    assert (sim.status.phase, sim.status.rollout.soak.begun) == ("Soaking", 2)


def test_pod_that_is_lost_while_another_comes_begins_the_soak_anew():
    sim = soaking()
    scaled(sim, 3, ready=False)
    sim.serving.pop(0)
    sim.settle()
    assert (sim.status.phase, sim.status.rollout.soak.lost[0].pod) == ("RollingOut", "support-llm-0")


def test_pod_that_is_lost_long_after_the_soak_has_its_time_to_come_back():
    """The store was away for hours, and the proof is asked for again and again."""
    sim = soaking()
    sim.now += 31
    sim.settle()
    sim.fail("promote", raw.said(raw.outcome(Step.PROMOTE, Result.FAILED, "StoreUnavailable", "s3 is away"), 1))
    sim.now += 7200
    lost = sim.serving.pop()
    sim.settle()
    assert sim.status.phase == "RollingOut"
    sim.now += 59
    sim.serving.append(lost)
    sim.settle()
    assert sim.status.phase == "Soaking"
