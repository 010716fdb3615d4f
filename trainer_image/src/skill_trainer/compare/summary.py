"""From finished runs to what they say: points, means with intervals, the retention matrix. Pure.

The intervals are over runs (seeds), skills held fixed: how much a variant's mean would move with other seeds. What
another set of questions or another skill would do is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance

from scipy.stats import t as student_t

from skill_contract.evaluation import Verdict
from skill_contract.model import Document
from skill_contract.step import TrainConfig
from skill_trainer.compare.journal import Finished
from skill_trainer.gates import judge
from skill_trainer.statistics import CONFIDENCE
from skill_trainer.steps.train import rejection

KEPT = 0.9
"""Normalised performance from which a skill counts as kept: the paper's, and the default of `minNormalized`."""


class Mean(Document):
    """A mean over runs with the bounds of its 95 % interval, which are None where there is one seed only."""

    value: float
    low: float | None = None
    high: float | None = None
    runs: int


class Point(Document):
    """One run: what it learned and what it kept."""

    variant: str
    skill: str
    seed: int
    before: float
    new_skill: float
    """Share of right answers to the held-out questions."""
    retention: float
    """The smallest normalised performance (after / before) of all retention suites."""
    verdict: str
    """`Passed`, or the reason of a rejection."""
    seconds: float


class Row(Document):
    """One variant over all its runs, or over those of one skill."""

    variant: str
    skill: str
    """Empty for the mean over all skills."""
    new_skill: Mean | None
    retention: Mean | None
    new_skill_gain: Mean | None = None
    """Over the first variant, paired by skill and seed; None for itself, as all means where every run diverged."""
    retention_gain: Mean | None = None
    passed: int
    """Runs that all gates let through."""
    made: int
    """Finished runs, those that diverged left out."""
    diverged: int = 0
    seconds: float
    """Mean wall time of training."""


class Cell(Document):
    """One suite after one stage, over the seeds."""

    suite: str
    stage: int
    score: Mean
    normalized: Mean | None
    """Against the score when it was learned (a skill) or before all training; None before it is learned, or where
    nothing was right then."""
    lowest: float | None
    """Of the seeds' normalised performances."""
    kept: bool
    """Whether the mean is at least KEPT, or there is nothing to keep yet."""


class Matrix(Document):
    """Suite × stage of one variant. Stage 0 is the untrained model."""

    variant: str
    stages: tuple[str, ...]
    """The skill that each stage taught, from stage 1."""
    verdicts: tuple[tuple[str, ...], ...]
    """What the gates said of each stage, seed by seed."""
    cells: tuple[Cell, ...]
    worst: Mean
    """Smallest normalised performance of a run after the last stage, over earlier skills and retention suites."""


@dataclass(frozen=True)
class Stage:
    """A run with the scores of the model that it began with."""

    config: TrainConfig
    before: Finished
    after: Finished

    @property
    def variant(self) -> str:
        """The first part of the run's name."""
        return self.config.update.uid.partition("/")[0]


def verdict(stage: Stage, kept: Sequence[str]) -> str:
    """Returns `Passed` or why the gates would have rejected this run, which had to keep the suites `kept`."""
    asked = (stage.config.skill.name, *kept)
    old, new = ({name: each.scores[name].right for name in asked} for each in (stage.before, stage.after))
    evaluation = judge(stage.config.gates, asked[0], old, new)
    return "Passed" if evaluation.verdict is Verdict.PASSED else rejection(evaluation)[0]


def point(stage: Stage) -> Point:
    """Returns what one run learned and kept."""
    skill = stage.config.skill.name
    kept = [suite for suite in stage.after.scores if suite != skill]
    return Point(
        variant=stage.variant, skill=skill, seed=stage.config.method.seed,
        before=stage.before.scores[skill].score, new_skill=stage.after.scores[skill].score,
        retention=min(_normalized(stage.before, stage.after, suite) for suite in kept),
        verdict=verdict(stage, kept), seconds=stage.after.seconds["training"],
    )  # fmt: skip


def rows(stages: Sequence[Stage]) -> list[Row]:
    """Returns one row per variant over all skills, then, where there are several, one per variant and skill."""
    points = [point(stage) for stage in stages if not stage.after.fault]
    faults = [(stage.variant, stage.config.skill.name) for stage in stages if stage.after.fault]
    skills = list(dict.fromkeys(each.skill for each in points))
    variants = list(dict.fromkeys(stage.variant for stage in stages))
    found = []
    for skill in ["", *(skills if len(skills) > 1 else [])]:
        chosen = [each for each in points if skill in ("", each.skill)]
        reference = {(each.skill, each.seed): each for each in chosen if each.variant == variants[0]}
        for variant in variants:
            own = [each for each in chosen if each.variant == variant]
            diverged = sum(name == variant and skill in ("", taught) for name, taught in faults)
            if own or diverged:
                found.append(_row(variant, skill, own, {} if variant == variants[0] else reference, diverged))
    return found


def _row(
    variant: str, skill: str, own: Sequence[Point], reference: Mapping[tuple[str, int], Point], diverged: int
) -> Row:
    if not own:
        return Row(
            variant=variant, skill=skill, new_skill=None, retention=None, passed=0, made=0, diverged=diverged, seconds=0
        )
    pairs = [(each, reference[each.skill, each.seed]) for each in own if (each.skill, each.seed) in reference]
    return Row(
        variant=variant,
        skill=skill,
        new_skill=mean([(each.skill, each.new_skill) for each in own]),
        retention=mean([(each.skill, each.retention) for each in own]),
        new_skill_gain=mean([(a.skill, a.new_skill - b.new_skill) for a, b in pairs]) if pairs else None,
        retention_gain=mean([(a.skill, a.retention - b.retention) for a, b in pairs]) if pairs else None,
        passed=sum(each.verdict == "Passed" for each in own),
        made=len(own),
        diverged=diverged,
        seconds=fmean(each.seconds for each in own),
    )


def mean(values: Sequence[tuple[str, float]]) -> Mean:
    """Returns the mean of (group, value) over groups of equal weight, with a t interval that holds the groups fixed.

    The variance is that within the groups, pooled: a skill that is harder than another is no noise. Source: one-way
    layout with fixed effects, Montgomery, Design and Analysis of Experiments, section 3.3.
    """
    groups: dict[str, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(value)
    value = fmean(fmean(group) for group in groups.values())
    freedom = sum(len(group) - 1 for group in groups.values())
    if not freedom:
        return Mean(value=value, runs=len(values))
    pooled = sum(variance(group) * (len(group) - 1) for group in groups.values() if len(group) > 1) / freedom
    error = sqrt(pooled * sum(1 / len(group) for group in groups.values())) / len(groups)
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Mean(value=value, low=value - reach, high=value + reach, runs=len(values))


def matrix(variant: str, runs: Sequence[Sequence[Stage]]) -> Matrix:
    """Returns the retention matrix of one variant; each of `runs` is a seed's stages, all of them finished."""
    skills = [stage.config.skill.name for stage in runs[0]]
    suites = list(runs[0][0].before.scores)
    states = [[run[0].before, *(stage.after for stage in run)] for run in runs]
    learned = {suite: skills.index(suite) + 1 if suite in skills else 0 for suite in suites}
    cells = [_cell(suite, stage, learned[suite], states) for suite in suites for stage in range(len(skills) + 1)]
    earlier = [suite for suite in suites if suite != skills[-1]]
    worst = [("", min(_normalized(row[learned[suite]], row[-1], suite) for suite in earlier)) for row in states]
    kept = [suite for suite in suites if suite not in skills]
    verdicts = [tuple(verdict(run[stage], [*skills[:stage], *kept]) for run in runs) for stage in range(len(skills))]
    return Matrix(
        variant=variant, stages=tuple(skills), verdicts=tuple(verdicts), cells=tuple(cells), worst=mean(worst)
    )


def _cell(suite: str, stage: int, learned: int, states: Sequence[Sequence[Finished]]) -> Cell:
    score = mean([("", row[stage].scores[suite].score) for row in states])
    if stage < learned:
        return Cell(suite=suite, stage=stage, score=score, normalized=None, lowest=None, kept=True)
    able = [row for row in states if any(row[learned].scores[suite].right)]
    if not able:
        return Cell(suite=suite, stage=stage, score=score, normalized=None, lowest=None, kept=True)
    shares = [_normalized(row[learned], row[stage], suite) for row in able]
    normalized = mean([("", share) for share in shares])
    return Cell(
        suite=suite, stage=stage, score=score, normalized=normalized, lowest=min(shares),
        kept=normalized.value >= KEPT,
    )  # fmt: skip


def _normalized(before: Finished, after: Finished, suite: str) -> float:
    """Returns after / before; 1 where nothing was right before, as the gates have it."""
    right = sum(before.scores[suite].right)
    return sum(after.scores[suite].right) / right if right else 1.0
