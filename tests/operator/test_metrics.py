"""The operator's metrics: what is counted, what is there now, and that nothing drifts or grows without bound."""

from __future__ import annotations

import asyncio
import copy
import re
import time
from pathlib import Path

import pytest

from skill_contract.outcome import Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator import metrics, transitions
from skill_operator.api import Phase, Reason
from skill_operator.handlers import Desk
from skill_operator.metrics import Metrics
from tests.operator import raw
from tests.operator.sim import Sim
from tests.operator.test_answers import reconciler

NAMED = {"namespace": "team", "name": "refund-tool"}


class Watched:
    """An update in the sim, whose status writes and watch events reach the metrics as from the operator."""

    def __init__(self, metrics: Metrics, sim: Sim) -> None:
        self.metrics, self.sim = metrics, sim
        self._before: raw.Raw = {}

    def observe(self) -> None:
        self.sim.settle()
        self.metrics.census.take(self.sim.body)
        self.metrics.changed(self._before, self.sim.body["status"], raw.NOW - 60)
        self._before = copy.deepcopy(self.sim.body["status"])

    def value(self, series: str, /, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"skill_operator_{series}", labels)


@pytest.fixture
def watched() -> Watched:
    return Watched(Metrics("1.2.3"), Sim(deployment=raw.deployment()))


def test_metrics_of_a_life(watched: Watched):
    sim, value = watched.sim, watched.value
    watched.observe()
    assert value("updates", phase="Checking") == 1
    assert value("queue_wait_seconds_sum") == 60
    sim.finish("check")
    watched.observe()
    sim.pod("train", raw.running())
    sim.progress = Progress(stage=Stage.TRAINING, step=5, total=10, loss=0.25, heartbeat=raw.NOW)
    watched.observe()
    assert (value("training_loss", **NAMED), value("training_step", **NAMED)) == (0.25, 5)
    sim.finish("train")
    watched.observe()
    assert value("training_loss", **NAMED) is None
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    watched.observe()
    assert value("update_rollback_timestamp_seconds", **NAMED) is not None
    sim.roll(digest=raw.PARENT[1])
    watched.observe()
    assert value("update_rollback_timestamp_seconds", **NAMED) is None
    assert value("gate_verdicts_total", verdict="Passed") == 1
    assert value("new_skill_gain_count") == 1
    assert value("rollbacks_total", reason="DigestMismatch") == 1
    assert value("rollouts_total", result="NotPromoted") == 1
    assert (value("updates", phase="RolledBack"), value("updates", phase="Checking")) == (1, 0)
    assert value("build_info", version="1.2.3") == 1


def test_settled_updates_have_no_series_of_their_own(watched: Watched):
    watched.observe()
    shown = {"skill_operator_update_phase", "skill_operator_update_progress_timestamp_seconds"}
    assert value_names(watched.metrics, "refund-tool") == shown
    watched.sim.fail("check", raw.said(raw.outcome(Step.CHECK, Result.FAILED, "DataInvalid"), 42), "PodFailurePolicy")
    watched.observe()
    assert value_names(watched.metrics, "refund-tool") == set()
    assert watched.value("updates", phase="Failed") == 1


def value_names(metrics: Metrics, update: str) -> set[str]:
    families = list(metrics.registry.collect())
    return {sample.name for family in families for sample in family.samples if sample.labels.get("name") == update}


RFC = "2026-01-01T00:00:00Z"


def body(uid: str, phase: str = "Training") -> raw.Raw:
    return {"metadata": {"namespace": "team", "name": uid, "uid": uid, "generation": 1}, "status": {"phase": phase}}


async def test_numbers_do_not_drift_when_a_watch_loses_deletions(unused_port: int):
    """Kubernetes tells nobody of what was deleted while a watch was broken: it is asked when the watch begins again."""
    there = [{"metadata": {"uid": uid}} for uid in ("a", "new")]
    answers = {"GET": (200, {"items": there, "metadata": {}})}
    async with reconciler(unused_port, answers) as one:
        world, desk = one.world, Desk(one.world, audit_seconds=0)
        for uid in ("a", "lost"):
            desk.listed(uid)  # nothing is known: this is the first watch, and nothing is asked
            desk.attend(settled(uid), is_gone=False)
        assert not desk._tasks
        desk.attend(settled("deleted"), is_gone=False)
        desk.attend(settled("deleted"), is_gone=True)
        desk.listed("a")
        await asyncio.gather(*desk._tasks)
        assert world.metrics.census.uids == {"a"}
        assert world.metrics.registry.get_sample_value("skill_operator_updates", {"phase": "Succeeded"}) == 1


def settled(uid: str) -> raw.Raw:
    conditions = [{"type": "Succeeded", "status": "True"}, {"type": "Ready", "status": "True"}]
    return {
        "metadata": {"namespace": "team", "name": uid, "uid": uid, "generation": 1, "resourceVersion": "1"},
        "status": {"phase": "Succeeded", "observedGeneration": 1, "conditions": conditions},
    }


def test_progress_is_what_changes_and_waiting_is_none(watched: Watched):
    census = watched.metrics.census
    when = [1000.0, 2000.0, 3000.0, 4000.0]
    census.clock = lambda: when[0]

    def progressed() -> float | None:
        return watched.value("update_progress_timestamp_seconds", namespace="team", name="a")

    census.take(body("a"))
    when.pop(0)
    census.take(body("a") | {"unrelated": "change"})
    assert progressed() == 1000
    census.take(body("a") | {"status": {"phase": "Training", "training": {"step": 1}}})
    assert progressed() == 2000
    queued = {"type": "Queued", "status": "True", "lastTransitionTime": "1970-01-01T00:00:50Z"}
    census.take(body("a") | {"status": {"phase": "Queued", "conditions": [queued]}})
    assert progressed() is None
    waiting = {"namespace": "team", "name": "a", "phase": "Queued"}
    assert watched.value("update_waiting_timestamp_seconds", **waiting) == 50
    when.pop(0)
    census.take(body("a", phase="Training"))
    assert watched.value("update_waiting_timestamp_seconds", **waiting) is None
    census.take(body("a", phase="Queued"))  # Kueue's queue has no condition of its own
    assert watched.value("update_waiting_timestamp_seconds", **waiting) == 3000


def test_pod_that_goes_and_comes_back_is_no_progress(watched: Watched):
    census = watched.metrics.census
    when = [1000.0]
    census.clock = lambda: when[0]

    def take(phase: str, verified: str, most: int) -> float | None:
        when[0] += 1000
        rollout = {"candidate": "c", "startedAt": RFC, "deadline": RFC, "podsVerified": verified, "mostVerified": most}
        census.take(body("a") | {"status": {"phase": phase, "rollout": rollout}})
        return watched.value("update_progress_timestamp_seconds", namespace="team", name="a")

    assert take("RollingOut", "1/2", 1) == 2000
    assert take("Soaking", "2/2", 2) == 3000
    assert take("RollingOut", "1/2", 2) == 3000
    assert take("Soaking", "2/2", 2) == 3000
    assert take("RollingBack", "2/2", 2) == 6000


def test_stop_that_somebody_asked_for_is_not_stuck(watched: Watched):
    def progressed(*conditions: str) -> float | None:
        said = [{"type": kind, "status": "True"} for kind in ("Ready", *conditions)]
        watched.metrics.census.take(body("a") | {"status": {"phase": "RollingOut", "conditions": said}})
        return watched.value("update_progress_timestamp_seconds", namespace="team", name="a")

    assert progressed() is None
    assert None not in {progressed("Reconciling"), progressed("Stalled")}


def test_no_series_appears_twice_when_an_update_is_made_anew(watched: Watched):
    for uid in ("before", "after"):
        update = body(uid)
        update["metadata"]["name"] = "a"
        watched.metrics.census.take(update)
    samples = [(s.name, *s.labels.items()) for f in watched.metrics.census.collect() for s in f.samples]
    assert len(samples) == len(set(samples))
    assert watched.value("updates", phase="Training") == 2


def test_labels_are_bounded_whatever_a_status_says(watched: Watched):
    rollback = {"reason": "Anything", "message": "", "startedAt": "", "deadline": ""}
    rollout = {"candidate": "c", "startedAt": "", "deadline": ""}
    watched.metrics.changed({"rollout": rollout}, {"rollout": rollout | {"rollback": rollback}}, 0)
    watched.metrics.told("Anything")
    watched.metrics.told(Reason.HEAD_MOVED)
    watched.metrics.census.take(body("a", phase="Anything"))
    assert watched.value("rollbacks_total", reason="Other") == 1
    assert watched.value("events_total", reason="Other") == 1
    assert watched.value("events_total", reason="HeadMoved") == 1
    assert watched.value("updates", phase="Pending") == 1
    phases = [s for f in watched.metrics.census.collect() for s in f.samples if s.name == "skill_operator_updates"]
    assert [sample.labels["phase"] for sample in phases] == [phase.value for phase in Phase]


def test_every_event_and_rollback_that_the_operator_names_is_counted_by_its_name(watched: Watched):
    """None of them is Other: whoever adds one adds it to the closed list."""
    source = "\n".join(path.read_text() for path in Path(metrics.__file__).parent.rglob("*.py"))
    told = set(re.findall(r'\bNews\("(\w+)"', source)) | set(transitions._REACHED.values())
    rolled_back = {Reason[name] for name in re.findall(r"begin_rollback\(facts, Reason\.(\w+)", source)}
    assert len(told) > 10
    assert len(rolled_back) >= 2
    for reason in told:
        watched.metrics.told(reason)
    for reason in rolled_back:
        rollback = {"reason": reason, "message": "", "startedAt": "", "deadline": ""}
        rollout = {"candidate": "c", "startedAt": "", "deadline": ""}
        watched.metrics.changed({"rollout": rollout}, {"rollout": rollout | {"rollback": rollback}}, 0)
    assert (watched.value("events_total", reason="Other"), watched.value("rollbacks_total", reason="Other")) == (0, 0)


def test_time_of_a_way_back_is_observed_once(watched: Watched):
    times = {"faultAt": "2025-01-01T00:00:00Z", "startedAt": "2025-01-01T00:00:05Z", "deadline": ""}
    rollback = {"reason": "EngineCrash", "message": "", **times}
    before = {"rollout": {"candidate": "c", "startedAt": "", "deadline": "", "rollback": rollback}}
    back = {"rollout": before["rollout"] | {"rollback": rollback | {"finishedAt": "2025-01-01T00:00:45Z"}}}
    for old, new in [({}, before), (before, back), (back, back)]:
        watched.metrics.changed(old, new, 0)
    assert (watched.value("rollback_seconds_count"), watched.value("rollback_seconds_sum")) == (1, 45)


def test_restarts_are_counted_once(watched: Watched):
    for old, new in [(0, 1), (1, 1), (1, 3), (3, 0)]:
        watched.metrics.changed({"training": {"restarts": old}}, {"training": {"restarts": new}}, 0)
    assert watched.value("training_restarts_total") == 3


def test_a_blocked_loop_is_late_before_it_turns_again(watched: Watched):
    assert watched.value("event_loop_lag_seconds") == 0
    watched.metrics.beat(lag=0.01)
    assert watched.value("event_loop_lag_seconds") == 0.01
    time.sleep(1.1)  # what is measured is the lapse of time itself
    assert watched.value("event_loop_lag_seconds") > 0.05
