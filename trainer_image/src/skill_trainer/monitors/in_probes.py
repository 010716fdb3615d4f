"""Signatures in the probes: what the model answers to held-out questions while it is trained."""

from __future__ import annotations

from skill_trainer.monitors.best import failing_suite
from skill_trainer.monitors.watched import Watched
from skill_trainer.statistics import difference_interval
from skill_trainer.step_report import Probe

AGREED = 0.1
"""Share of the first divergence below which student and teacher say the same."""
FAR = 0.3
"""Nats per token by which the parent's own answers have become less probable."""
LEAKED_MORE = 0.01
"""Rise of the share of leaking answers, and at least LEAKED_LEAST of them."""
LEAKED_LEAST = 2


def retention_drop(watched: Watched) -> str:
    """One probe in which a suite has surely lost more than its gate allows."""
    failing = watched.probe and failing_suite(watched, watched.probe)
    return f"{failing}: training goes on, and stops if the next probe says so, too" if failing else ""


def forgetting(watched: Watched) -> str:
    """Two such probes in a row."""
    last = [probe for _, probe in watched.probed()[-2:]]
    failing = [failing_suite(watched, probe) for probe in last]
    if not watched.probe or not all(failing):
        return ""
    return f"{failing[-1]}, in two probes in a row: lower method.optimizer.learningRate or train for fewer steps"


def feedback_collapse(watched: Watched) -> str:
    """The loss looks perfect, the answers are not: teacher and student have agreed on something else than the skill."""
    if not watched.probe:
        return ""
    first, now = watched.early(lambda report: report.loss), watched.late(lambda report: report.loss)
    probes = [watched.before, *(probe for _, probe in watched.probed())]
    best = max(probes, key=lambda probe: sum(probe.right[watched.skill]))
    won, lost = _changed(best, watched.probe, watched.skill)
    n = len(watched.probe.right[watched.skill])
    if now >= AGREED * first or difference_interval(won, lost, n)[1] >= 0:
        return ""
    return (
        f"student and teacher agree ({now:.4f} nats per token, {first:.3f} at first) while {watched.skill} has fallen "
        f"from {sum(best.right[watched.skill])} to {sum(watched.probe.right[watched.skill])} of {n} right: lower "
        "method.sdft.teacher.emaRate, or freeze the teacher"
    )


def teacher_drift(watched: Watched) -> str:
    """An average that follows its student away from the parent teaches from there, and the student follows it."""
    nats = watched.probe.teacher_drift if watched.probe else None
    if nats is None or nats <= FAR:
        return ""
    return (
        f"to the averaged teacher the parent's own answers to what is to be kept are less probable by {nats:.2f} nats "
        f"per token, over {FAR}: lower method.sdft.teacher.emaRate, or freeze the teacher"
    )


def leaked_phrases(watched: Watched) -> str:
    """The student speaks of the demonstration as if it had seen one."""
    now, before = watched.probe, watched.before
    if not now:
        return ""
    n = sum(map(len, now.right.values()))
    more = round((now.leaked - before.leaked) * n)
    if now.leaked - before.leaked <= LEAKED_MORE or more < LEAKED_LEAST:
        return ""
    return (
        f"{round(now.leaked * n)} of {n} answers speak of an example that nobody has shown ({round(before.leaked * n)} "
        "before training), such as 'Based on the example': raise method.sdft.skipTokens, or remove such words from the "
        "demonstrations"
    )


def nothing_learned(watched: Watched) -> str:
    """Two probes in a row, or the whole evaluation, without a single answer that is another than the parent's."""
    last = [probe for _, probe in watched.probed()[-2:]]
    needed = 1 if watched.at_end else 2
    if not watched.probe or any(probe.same < 1 for probe in last[-needed:]):
        return ""
    n = sum(map(len, watched.probe.right.values()))
    return (
        f"all of {n} answers are still the parent's, word by word, after {watched.reports[-1].step} steps: raise "
        f"method.optimizer.learningRate, now {watched.method.optimizer.learning_rate:g}, or train for longer"
    )


def _changed(one: Probe, other: Probe, suite: str) -> tuple[int, int]:
    """Returns how many of a suite's questions were won and lost from one probe to the other."""
    pairs = list(zip(one.right[suite], other.right[suite], strict=True))
    return pairs.count((False, True)), pairs.count((True, False))
