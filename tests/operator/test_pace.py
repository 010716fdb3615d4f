"""How long a rollout may take: its time comes anew with every pod beyond the most there have been, else it ends."""

from __future__ import annotations

from tests.operator import raw
from tests.operator.live import LiveSim
from tests.operator.raw import CANDIDATE, CHILD, PREVIOUS
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
