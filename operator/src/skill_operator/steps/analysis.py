"""Analyse: do the pods on the candidate fail more, or answer slower, than those on the version before did?

Pure. What Prometheus is to be asked is said here, and what its answers mean; an edge asks. There are three verdicts:
too little to tell is neither a pass nor a fail, and only fails in a row take a candidate back before its time is up.
It is asked twice: of the first new pod while the others are held (where `canarySeconds` says so), and in the soak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skill_contract.spec import Analysis, AnalysisMetric
from skill_contract.step import Step
from skill_operator.api import Phase, Reason, to_unix
from skill_operator.observed import Answer, Question, Target
from skill_operator.status import Analysed, Measured, Rollout, Status
from skill_operator.steps.rollback import begin_rollback
from skill_operator.steps.target import standing
from skill_operator.steps.verdict import ROLLOUT_SECONDS, Facts, Verdict

PASSED, FAILED, INCONCLUSIVE = "Passed", "Failed", "Inconclusive"
SAMPLES = "(samples)"
"""Asked beside the metrics: how many requests their values stand on."""
Said = Mapping[tuple[str, bool], Answer]
"""By the question's name, and whether it is about the version before."""


def questions(facts: Facts) -> tuple[Question, ...]:
    """Returns what Prometheus is to be asked now: each query for the candidate's pods, and for those before it."""
    analysis, rollout, target = _analysis(facts), facts.known.rollout, facts.seen.target
    if analysis is None or rollout is None or target is None or not _is_due(facts, analysis, rollout):
        return ()
    queries = {SAMPLES: analysis.samples} | {metric.name: metric.query for metric in analysis.metrics}
    now = tuple(pod.name for pod in standing(target) if pod.weights == rollout.candidate)
    before, at = _before(rollout, target)
    return tuple(
        question
        for name, query in queries.items()
        for question in (
            Question(name, _about(query, facts.update.namespace, now)),
            Question(name, _about(query, facts.update.namespace, before), before=True, at=at),
        )
    )


def _before(rollout: Rollout, target: Target) -> tuple[tuple[str, ...], float | None]:
    """Returns the pods to compare with, and when: those that serve beside the first new one; else those of then."""
    if rollout.verified_at:
        return rollout.previous_pods, to_unix(rollout.started_at)
    return tuple(pod.name for pod in standing(target) if pod.weights != rollout.candidate), None


def _analysis(facts: Facts) -> Analysis | None:
    return facts.spec.serving.analysis if facts.spec.serving else None


def _is_due(facts: Facts, analysis: Analysis, rollout: Rollout) -> bool:
    since, last = rollout.watched_since, to_unix(rollout.analysis.at) if rollout.analysis else None
    if since is None or rollout.rollback or facts.known.is_final or facts.seen.job(Step.PROMOTE):
        return False
    return facts.now >= (last + analysis.interval_seconds if last else since + analysis.warmup_seconds)


def _about(query: str, namespace: str, pods: tuple[str, ...]) -> str:
    """Returns a query about the pods of one version: `$pods` stands in a matcher with `=~`, `$namespace` with `=`."""
    names = "|".join(name.replace(".", "[.]") for name in pods)
    return query.replace("$namespace", namespace).replace("$pods", names)


def learn_analysis(facts: Facts) -> Status:
    """Returns what is known after Prometheus was asked: the newest values, and how often in a row they failed."""
    analysis, rollout = _analysis(facts), facts.known.rollout
    if analysis is None or rollout is None or rollout.rollback or facts.known.is_final:
        return facts.known
    if rollout.watched_since is None:  # what was seen of the first pod, or of a soak that begins anew, does not count
        return facts.learn(rollout=rollout.model_copy(update={"analysis": None}))
    said = {(answer.question.name, answer.question.before): answer for answer in facts.seen.answers}
    if not said:
        return facts.known
    result, message, metrics = judge(analysis, said)
    failures = rollout.analysis.failures if rollout.analysis else 0
    learnt = Analysed(
        result=result,
        message=message,
        at=facts.time,
        samples=said[SAMPLES, False].value,
        failures={PASSED: 0, FAILED: failures + 1}.get(result, failures),
        metrics=metrics,
    )
    return facts.learn(rollout=rollout.model_copy(update={"analysis": learnt}))


def judge(analysis: Analysis, said: Said) -> tuple[str, str, tuple[Measured, ...]]:
    """Returns the verdict on the candidate, why in one sentence, and what was measured."""
    seen = tuple(_measured(metric, analysis, said) for metric in analysis.metrics)
    metrics = tuple(measured for measured, _ in seen)
    few = _too_few(analysis, said[SAMPLES, False], "the candidate")
    if few:
        return INCONCLUSIVE, few, metrics
    for result in (FAILED, INCONCLUSIVE):
        words = "; ".join(why for measured, why in seen if measured.verdict == result)
        if words:
            return result, words, metrics
    return PASSED, f"{len(metrics)} metrics are within their limits", metrics


def _too_few(analysis: Analysis, samples: Answer, whose: str) -> str:
    if samples.value is None:
        return f"samples of {whose}: {samples.problem}"
    if samples.value < analysis.min_samples:
        return f"too few samples of {whose}: {samples.value:g} of minSamples {analysis.min_samples}"
    return ""


def _measured(metric: AnalysisMetric, analysis: Analysis, said: Said) -> tuple[Measured, str]:
    now, before = said[metric.name, False], said[metric.name, True]
    unknown = _too_few(analysis, said[SAMPLES, True], "the version before") or before.problem
    previous = None if unknown else before.value
    verdict, why = _limits(metric, now, previous, unknown)
    return Measured(name=metric.name, value=now.value, previous=previous, verdict=verdict), f"{metric.name}: {why}"


def _limits(metric: AnalysisMetric, now: Answer, previous: float | None, unknown: str) -> tuple[str, str]:
    if now.value is None:
        return INCONCLUSIVE, now.problem
    breach = next(_breaches(metric, now.value, previous), "")
    if breach:
        return FAILED, breach
    compares = metric.max_ratio is not None or metric.max_increase is not None
    if compares and previous is None:
        return INCONCLUSIVE, f"nothing to compare with: {unknown}"
    if metric.max_ratio is not None and previous == 0 < now.value:
        return (
            INCONCLUSIVE,
            f"{now.value:g} has no ratio to 0 of the version before: maxIncrease compares with nothing, too",
        )
    return PASSED, ""


def _breaches(metric: AnalysisMetric, value: float, previous: float | None) -> Iterator[str]:
    if metric.max is not None and value > metric.max:
        yield f"{value:g} is above max {metric.max:g}"
    if previous is None:
        return
    if metric.max_increase is not None and value - previous > metric.max_increase:
        yield f"{value:g} is more than maxIncrease {metric.max_increase:g} above {previous:g} of the version before"
    if metric.max_ratio is not None and previous > 0 and value > metric.max_ratio * previous:
        yield f"{value:g} is more than maxRatio {metric.max_ratio:g} times {previous:g} of the version before"


def analyse(facts: Facts) -> Verdict | None:
    """In the soak, worse than before several times in a row: back; still unknown after it: wait, but not for ever."""
    rollout, serving = facts.known.rollout, facts.spec.serving
    if rollout is None or serving is None:
        return None
    since = to_unix(rollout.verified_at)
    assert since is not None, "analyse comes after roll, which lets nothing through that is not verified"
    pods = f"{rollout.pods_verified} pods verified"
    return insist(facts, Phase.SOAKING, pods, since + serving.soak_seconds, "the soak")


def canary_seconds(facts: Facts) -> int:
    """Returns how long the first new pod is to be analysed before the others follow; 0: not at all."""
    analysis = _analysis(facts)
    return analysis.canary_seconds if analysis else 0


def insist(facts: Facts, phase: Phase, what: str, over: float, span: str) -> Verdict | None:
    """Returns the way back or the wait that the analysis asks for; None: it has nothing against going on.

    Args:
        what: serves the candidate, in words.
        over: when it has served as long as it has to, Unix seconds; before that only fails count.
        span: what is over then, in words.
    """
    analysis, rollout, serving = _analysis(facts), facts.known.rollout, facts.spec.serving
    if analysis is None or rollout is None or serving is None:
        return None
    last = rollout.analysis
    if last and last.failures >= analysis.failure_limit:
        return begin_rollback(facts, Reason.ANALYSIS_FAILED, f"{last.failures} times in a row: {last.message}")
    if facts.now < over or (last and last.result == PASSED):
        return None
    why = last.message if last else "Prometheus has not been asked yet"
    if facts.now <= over + serving.progress_deadline_seconds:
        return Verdict(
            phase=phase,
            reason=Reason.ANALYSING,
            message=f"{what}; the analysis has not passed: {why}",
            requeue_after=ROLLOUT_SECONDS,
        )
    if analysis.on_inconclusive == "Promote" and not (last and last.result == FAILED):
        return None
    message = f"not passed within {serving.progress_deadline_seconds} s after {span}: {why}"
    return begin_rollback(facts, Reason.ANALYSIS_INCONCLUSIVE, message)
