"""Which of the probed states is the best one, over both axes: the new skill, and what must not be lost for it."""

from __future__ import annotations

from skill_contract.evaluation import Verdict
from skill_trainer.gates import retention_gates
from skill_trainer.monitors.watched import Watched
from skill_trainer.step_report import Probe

POOLED = "all earlier suites together"


def best_step(watched: Watched) -> int | None:
    """Returns the step of the best probed state, None where none was probed.

    The best new-skill score among the states that keep what the retention gate asks for, as far as a probe can tell
    (its verdict is not Failed); the least loss where none does. Of two equal ones the one with the better other axis,
    then the later one.
    """
    ranked = [(_rank(watched, probe), step) for step, probe in watched.probed()]
    return max(ranked)[1] if ranked else None


def _rank(watched: Watched, probe: Probe) -> tuple[bool, float, float]:
    skill, kept = probe.scores()[watched.skill], worst_retention(watched, probe)
    return (False, kept, skill) if failing_suite(watched, probe) else (True, skill, kept)


def worst_retention(watched: Watched, probe: Probe) -> float:
    """Returns the smallest share, of all suites, of what the parent could that is still there; 1 without suites."""
    before, after = watched.before.scores(), probe.scores()
    shares = [after[suite] / before[suite] for suite in after if suite != watched.skill and before[suite]]
    return min(shares, default=1.0)


def failing_suite(watched: Watched, probe: Probe) -> str:
    """Returns the first suite, or all of them together, that has Failed the retention gate, with the reason; else ''.

    A probe has few questions of each suite, but many of all: what no single suite can show, their sum may.
    """
    suites = [suite for suite in probe.right if suite != watched.skill]
    if not suites:
        return ""
    before, after = ({suite: each.right[suite] for suite in suites} for each in (watched.before, probe))
    for each in (before, after):
        each[POOLED] = tuple(right for suite in suites for right in each[suite])
    judged = retention_gates(before, after, watched.gates.retention)
    return next((f"{each.suite}: {each.reason}" for each in judged if each.verdict is Verdict.FAILED), "")
