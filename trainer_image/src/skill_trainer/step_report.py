"""What one step has to tell, and the series of a run as JSON. Pure: numbers in, numbers out, no tensor, no file.

Everything here is a function of the run's steps so far, so that a resumed run tells the same story as a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import TypeAdapter

from skill_contract.evaluation import Alarm

NGRAM = 3
"""Tokens of the pieces whose repetition is counted: long enough to be no word, short enough for short loops."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the model answered to a few fixed questions, greedily and without any demonstration."""

    right: dict[str, tuple[bool, ...]]
    """By suite, question by question, in the order of the suites."""
    leaked: float
    """Share of answers that speak of an example which nobody has shown."""
    same: float
    """Share of answers that are the parent's, word by word."""
    drift: float | None = None
    """By how much less probable the parent's own answers have become, nats per token; None where none are known."""
    teacher_drift: float | None = None
    """The same of an averaged teacher; None of one that stays."""

    def scores(self) -> dict[str, float]:
        """Returns the share of right answers by suite."""
        return {suite: sum(right) / len(right) for suite, right in self.right.items()}


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step has to tell."""

    step: int
    """Steps done, this one included."""
    loss: float
    entropy: float
    """Of the student's distribution, nats per token."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    mean_length: float
    """Tokens of an answer."""
    cut_share: float
    """Share of answers that were cut at the limit of new tokens."""
    empty_share: float
    """Share of answers that are too short to carry a loss (not longer than the skipped tokens)."""
    tokens_answered: int
    """Tokens of all answers together."""
    distinct_share: float = 1.0
    """Share of the answers' pieces of NGRAM tokens that are not a repetition within their answer."""
    top_share: float = 0.0
    """Share of the loss in the one token of a hundred that carries most of it."""
    thought_share: float = 0.0
    """Share of an answer's characters that are thoughts, in the tags of `thoughts`."""
    sampler_gap: float | None = None
    """Mean |log p(token) when sampled - log p(token) in the pass that trains on it|, nats; None without samples."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by part: generate, teacher, student, backward, optimizer; probe, where there was one."""
    probe: Probe | None = None
    alarms: tuple[Alarm, ...] | None = None
    """Raised at this step for the first time; None where nobody has looked yet."""


Series = TypeAdapter(list[StepReport])
"""The reports of all steps so far, to and from JSON without loss."""


def report_step(
    step: int, answers: Sequence[Sequence[int]], finished: Sequence[bool], *, skip: int, loss: float, entropy: float,
    top: float, gradient_norm: float, learning_rate: float, seconds: Mapping[str, float],
    thought_share: float = 0.0, sampler_gap: float | None = None,
) -> StepReport:  # fmt: skip
    """Returns the report of a step on `answers`, token ids each, of which the first `skip` carry no loss.

    `top` is what the few tokens of the largest loss carry of it.
    """
    lengths = [len(answer) for answer in answers]
    return StepReport(
        step=step, loss=loss, entropy=entropy, gradient_norm=gradient_norm, learning_rate=learning_rate,
        mean_length=fmean(lengths),
        cut_share=1 - fmean(finished),
        empty_share=fmean(length <= skip for length in lengths),
        tokens_answered=sum(lengths),
        distinct_share=fmean(map(distinct_share, answers)),
        top_share=top / loss if loss > 0 else 0.0,
        thought_share=thought_share,
        sampler_gap=sampler_gap,
        seconds=dict(seconds),
    )  # fmt: skip


def distinct_share(answer: Sequence[int]) -> float:
    """Returns which share of an answer's pieces of NGRAM tokens are different ones: 1 where nothing is said twice.

    1 where the answer has no such piece. Source: distinct-n of Li et al., arXiv 1510.03055, within one answer.
    """
    pieces = [tuple(answer[start : start + NGRAM]) for start in range(len(answer) - NGRAM + 1)]
    return len(set(pieces)) / len(pieces) if pieces else 1.0
