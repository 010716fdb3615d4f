"""Analysis of a candidate's metrics: three verdicts, and what each does to a rollout."""

from __future__ import annotations

from typing import Any

import pytest

from skill_contract.spec import Analysis
from skill_operator.api import parse
from skill_operator.observed import Answer, Question
from skill_operator.plan import asks
from skill_operator.prometheus import one_value
from skill_operator.steps.analysis import SAMPLES, judge
from tests.operator import raw
from tests.operator.raw import PARENT, PREVIOUS
from tests.operator.seen import assert_failed, promote_config, why
from tests.operator.sim import Sim

ANALYSIS: dict[str, Any] = {
    "samples": 'sum(increase(requests_total{pod=~"$pods"}[1m]))',
    "minSamples": 50,
    "metrics": [
        {
            "name": "errors",
            "query": 'errors{namespace="$namespace", pod=~"$pods"}',
            "max": "0.05",
            "maxIncrease": "0.01",
        },
        {"name": "latency", "query": 'latency{pod=~"$pods"}', "maxRatio": "1.5"},
    ],
    "warmupSeconds": 10,
    "intervalSeconds": 10,
}
GOOD = {SAMPLES: (100.0, 100.0), "errors": (0.01, 0.01), "latency": (1.0, 1.0)}
"""Of the candidate, and of the version before."""


def rolled(**changes: Any) -> Sim:
    """All pods on the candidate; the soak of 30 s has begun."""
    body = raw.update()
    body["spec"]["serving"]["analysis"] = ANALYSIS | changes
    sim = Sim(body, raw.deployment(weights=PREVIOUS))
    sim.until_published()
    sim.prometheus = dict(GOOD)
    sim.roll()
    sim.settle()
    assert sim.status.phase == "Soaking"
    return sim


def wait(sim: Sim, seconds: float, **said: tuple[float | None, float | None]) -> None:
    """Time goes by, in passes, with Prometheus saying this from now on."""
    sim.prometheus |= said
    for _ in range(round(seconds / 5)):
        sim.now += 5
        sim.settle()


def analysed(sim: Sim) -> Any:
    assert sim.status.rollout is not None
    return sim.status.rollout.analysis


def test_candidate_that_is_no_worse_passes_and_is_promoted_after_the_soak():
    sim = rolled()
    wait(sim, 25)
    assert (analysed(sim).result, analysed(sim).samples, sim.status.phase) == ("Passed", 100, "Soaking")
    assert not sim.has_job("promote")
    wait(sim, 5)
    sim.finish("promote")
    sim.settle()
    assert sim.status.phase == "Succeeded"


def test_nothing_is_asked_while_it_warms_up_and_then_once_in_an_interval():
    sim = rolled()
    wait(sim, 5)
    assert analysed(sim) is None
    times = set()
    for _ in range(4):
        wait(sim, 5)
        times.add(analysed(sim).at)
    assert len(times) == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"errors": (0.06, 0.055)}, "errors: 0.06 is above max 0.05"),
        ({"errors": (0.03, 0.01)}, "errors: 0.03 is more than maxIncrease 0.01 above 0.01 of the version before"),
        ({"latency": (1.6, 1.0)}, "latency: 1.6 is more than maxRatio 1.5 times 1 of the version before"),
    ],
)
def test_candidate_that_is_worse_twice_in_a_row_is_rolled_back_before_the_soak_is_over(said: Any, words: str):
    sim = rolled()
    wait(sim, 15, **said)
    assert (analysed(sim).result, analysed(sim).failures, sim.status.phase) == ("Failed", 1, "Soaking")
    wait(sim, 10)
    assert (sim.status.phase, sim.annotation) == ("RollingBack", PREVIOUS)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "AnalysisFailed", "2 times in a row", words)


def test_one_bad_look_between_good_ones_does_no_harm():
    sim = rolled()
    wait(sim, 10, errors=(1.0, 0.0))
    wait(sim, 10, errors=(0.0, 0.0))
    assert (analysed(sim).result, analysed(sim).failures) == ("Passed", 0)
    wait(sim, 10, errors=(1.0, 0.0))
    assert (analysed(sim).failures, sim.status.phase, sim.has_job("promote")) == (1, "Soaking", False)
    assert "the analysis has not passed: errors: 1 is above max 0.05" in why(sim)[1]
    wait(sim, 10, errors=(0.0, 0.0))
    assert sim.has_job("promote")


INCONCLUSIVE = [
    ({SAMPLES: (12.0, 100.0), "errors": (1.0, 0.0)}, "too few samples of the candidate: 12 of minSamples 50"),
    ({SAMPLES: (None, None)}, "samples of the candidate: no data"),
    ({"errors": (None, 0.0)}, "errors: no data"),
    ({SAMPLES: (100.0, 3.0)}, "nothing to compare with: too few samples of the version before: 3 of minSamples 50"),
    ({"latency": (1.0, 0.0)}, "latency: 1 has no ratio to 0 of the version before"),
]


@pytest.mark.parametrize(("said", "words"), INCONCLUSIVE)
def test_too_little_to_tell_is_waited_for_and_then_rolled_back(said: Any, words: str):
    sim = rolled()
    sim.prometheus |= said
    wait(sim, 60)
    assert (analysed(sim).result, sim.status.phase, sim.has_job("promote")) == ("Inconclusive", "Soaking", False)
    assert why(sim)[0] == "Analysing"
    assert words in why(sim)[1]
    sim.now += 1800
    sim.settle()
    assert sim.status.phase == "RollingBack"
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "AnalysisInconclusive", "not passed within 1800 s after the soak", words)


def test_too_little_to_tell_may_be_taken_for_good_but_a_fail_may_not():
    for said, phase in (({SAMPLES: (0.0, 0.0)}, "Soaking"), ({"errors": (1.0, 0.0)}, "RollingBack")):
        sim = rolled(onInconclusive="Promote", failureLimit=100)
        sim.prometheus |= said
        wait(sim, 40)
        assert not sim.has_job("promote")
        sim.now += 1800
        sim.settle()
        assert (sim.status.phase, sim.has_job("promote")) == (phase, phase == "Soaking")


def test_data_that_is_missing_after_a_pass_holds_the_promotion():
    sim = rolled()
    wait(sim, 20)
    assert analysed(sim).result == "Passed"
    sim.prometheus |= {SAMPLES: (None, None)}
    wait(sim, 20)
    assert (analysed(sim).result, sim.has_job("promote")) == ("Inconclusive", False)


def test_a_pod_that_is_lost_begins_the_analysis_anew_with_the_soak():
    sim = rolled()
    wait(sim, 15, errors=(1.0, 0.0))
    assert analysed(sim).failures == 1
    sim.serving.pop()
    sim.settle()
    assert analysed(sim) is None
    sim.roll()
    wait(sim, 15)
    assert analysed(sim).failures == 1


def test_rollback_by_a_person_s_hand_waits_for_a_person():
    sim = rolled()
    sim.body["spec"]["serving"]["rollback"] = "Manual"
    wait(sim, 30, errors=(1.0, 0.0))
    assert (why(sim, "Stalled")[0], sim.annotation) == ("AnalysisFailed", raw.CANDIDATE)


def test_limits_may_change_while_it_soaks():
    sim = rolled()
    wait(sim, 60, errors=(None, None))
    sim.body["spec"]["serving"]["analysis"] = ANALYSIS | {"metrics": ANALYSIS["metrics"][1:]}
    wait(sim, 10)
    assert sim.has_job("promote")


def test_queries_are_about_the_pods_of_one_version():
    sim = rolled()
    sim.now += 10
    began = raw_time(sim)
    said = {(q.name, q.before): q for q in asks(parse(sim.body), sim.observed(), sim.now)}
    assert said["errors", False].expression == 'errors{namespace="team", pod=~"support-llm-0|support-llm-1"}'
    assert (said["errors", False].at, said["errors", True].at) == (None, began)
    assert len(said) == 6


def raw_time(sim: Sim) -> float:
    from skill_operator.api import to_unix

    assert sim.status.rollout is not None
    return to_unix(sim.status.rollout.started_at) or 0


def test_update_without_analysis_asks_nothing():
    sim = Sim(deployment=raw.deployment())
    sim.until_rolled()
    sim.now += 20
    assert asks(parse(sim.body), sim.observed(), sim.now) == ()


def test_a_limit_is_the_most_that_is_allowed():
    analysis = Analysis.parse(
        {
            "samples": "$pods",
            "minSamples": 1,
            "metrics": [{"name": "x", "query": "$pods", "max": "0.5", "maxRatio": "2"}],
        }
    )

    def verdict(now: float, before: float) -> str:
        said = {
            (name, old): Answer(Question(name, "", old), value)
            for name, values in {SAMPLES: (1.0, 1.0), "x": (now, before)}.items()
            for old, value in zip((False, True), values, strict=True)
        }
        return judge(analysis, said)[0]

    assert [verdict(0.5, 0.25), verdict(0.51, 0.4), verdict(0.5, 0.24)] == ["Passed", "Failed", "Failed"]


VECTOR = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "0.25"]}]}}


@pytest.mark.parametrize(
    ("answer", "value", "words"),
    [
        (VECTOR, 0.25, ""),
        ({"status": "success", "data": {"resultType": "scalar", "result": [0, "3"]}}, 3.0, ""),
        ({"status": "success", "data": {"resultType": "vector", "result": []}}, None, "no data"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{"value": [0, "NaN"]}]}}, None, "is nan"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{"value": [0, "+Inf"]}]}}, None, "is inf"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{}, {}]}}, None, "2 series"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, None, "returns a matrix"),
        ({"status": "error", "error": "parse error"}, None, "refuses the query: parse error"),
        ([], None, "does not say why"),
    ],
)
def test_answers_of_prometheus(answer: Any, value: float | None, words: str):
    read, problem = one_value(answer)
    assert read == value
    assert words in problem


# -- the first new pod, while the others are held ---------------------------------------------------------------------


def watched(**changes: Any) -> Sim:
    """The first new pod is proved and the others are held, for a minute of analysis."""
    body = raw.update()
    body["spec"]["serving"]["analysis"] = ANALYSIS | {"canarySeconds": 60} | changes
    sim = Sim(body, raw.deployment(weights=PREVIOUS))
    sim.until_held()
    sim.prometheus = dict(GOOD)
    sim.finish("prove")
    sim.settle()
    assert (sim.status.phase, why(sim)[0], is_paused(sim)) == ("RollingOut", "Analysing", True)
    return sim


def is_paused(sim: Sim) -> bool:
    assert sim.deployment is not None
    return bool(sim.deployment["spec"].get("paused"))


def test_others_follow_when_the_first_new_pod_has_done_no_worse_for_long_enough():
    sim = watched()
    wait(sim, 55)
    assert (analysed(sim).result, is_paused(sim)) == ("Passed", True)
    wait(sim, 5)
    assert not is_paused(sim)
    assert sim.status.rollout is not None
    assert sim.status.rollout.hold is not None
    assert "2 metrics are within their limits" in sim.status.rollout.hold.message
    sim.roll()
    sim.settle()
    assert (sim.status.phase, analysed(sim)) == ("Soaking", None), "the soak begins with nothing known"


def test_first_new_pod_is_compared_with_those_beside_it():
    sim = watched()
    sim.now += 10
    questions = {(q.name, q.before): q for q in asks(parse(sim.body), sim.observed(), sim.now)}
    now, before = questions["latency", False], questions["latency", True]
    assert (now.expression, now.at) == ('latency{pod=~"support-llm-9"}', None)
    assert (before.expression, before.at) == ('latency{pod=~"support-llm-0|support-llm-1"}', None)


def test_first_new_pod_that_does_worse_is_the_last():
    sim = watched()
    wait(sim, 25, errors=(0.2, 0.01))
    assert (sim.status.phase, sim.annotation, is_paused(sim)) == ("RollingBack", PREVIOUS, False)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "RolledBack", "AnalysisFailed", "2 times in a row", "errors: 0.2 is above max 0.05")


def test_first_new_pod_of_which_too_little_is_known_is_waited_for_and_then_taken_back():
    sim = watched()
    wait(sim, 1800, **{SAMPLES: (3.0, 100.0)})
    assert (sim.annotation, is_paused(sim)) == (raw.CANDIDATE, True), "the rollout's own deadline is later"
    assert "too few samples of the candidate: 3" in why(sim)[1]
    wait(sim, 100)
    assert (sim.status.phase, sim.annotation, is_paused(sim)) == ("RollingBack", PREVIOUS, False)
    assert "after canarySeconds" in why(sim)[1]


def test_first_new_pod_of_which_too_little_is_known_may_be_taken_for_good():
    sim = watched(onInconclusive="Promote")
    wait(sim, 1900, **{SAMPLES: (3.0, 100.0)})
    assert (sim.annotation, is_paused(sim)) == (raw.CANDIDATE, False)


def test_first_new_pod_whose_engine_ends_once_while_it_is_watched_is_the_last():
    sim = watched()
    wait(sim, 20)
    ended = raw.terminated(1, "assertion", at=sim.now)
    sim.serving[-1]["status"]["containerStatuses"][0] |= {"restartCount": 1, "lastState": {"terminated": ended}}
    sim.settle()
    assert (sim.status.phase, sim.annotation, is_paused(sim)) == ("RollingBack", PREVIOUS, False)
    assert why(sim)[1].startswith("EngineCrash: the engine of pod support-llm-9")


def replaced(sim: Sim, index: int = 10) -> None:
    """The pod that was proved is evicted; the controller makes another one."""
    sim.serving.pop()
    status = raw.serving_status(raw.fetched(raw.CANDIDATE, raw.CHILD[1]))
    sim.serving.append(raw.serving_pod(index, raw.CANDIDATE, status))
    sim.settle()


def test_pod_in_the_place_of_the_one_that_was_proved_is_proved_and_watched_from_the_beginning():
    sim = watched()
    wait(sim, 55)
    replaced(sim)
    assert (is_paused(sim), sim.job("prove")["status"]) == (True, {"active": 1}), "nobody has asked this one"
    assert [pod.name for pod in promote_config(sim, "prove").pods] == ["support-llm-10"]
    sim.finish("prove")
    sim.settle()
    assert (why(sim)[0], analysed(sim)) == ("Analysing", None)
    wait(sim, 55)
    assert is_paused(sim)
    wait(sim, 5)
    assert not is_paused(sim)


def test_pods_that_are_evicted_again_and_again_end_the_watch():
    sim = watched()
    for index in range(80):
        wait(sim, 55)
        if sim.status.phase == "RollingBack":
            break
        replaced(sim, 10 + index)
        sim.finish("prove")
        sim.settle()
    assert (sim.status.phase, sim.annotation, is_paused(sim)) == ("RollingBack", PREVIOUS, False)
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert_failed(sim, "Failed", "SoakUnsteady", "went away")


def test_others_do_not_follow_one_that_is_not_ready():
    sim = watched()
    wait(sim, 55)
    sim.serving[-1]["status"]["conditions"][0]["status"] = "False"
    wait(sim, 20)
    assert is_paused(sim)
    assert "when it is ready again" in why(sim)[1]
    sim.serving[-1]["status"]["conditions"][0]["status"] = "True"
    wait(sim, 5)
    assert not is_paused(sim)


def test_person_may_let_the_others_follow_sooner():
    sim = watched()
    sim.body["spec"]["serving"]["analysis"]["canarySeconds"] = 0
    sim.settle()
    assert not is_paused(sim)
