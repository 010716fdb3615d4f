"""Signatures in the figures of the steps: what can be seen without asking the model anything.

Thresholds are starting points from the failures that others have published, listed in docs/gates.md; none is tuned to a
model.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from statistics import fmean

from skill_contract.spec import Divergence
from skill_trainer.monitors.watched import LATE, Watched

IGNORED_NATS = 0.01
"""KL(teacher || student) per token below which a demonstration changes nothing that could be learned."""
JSD_TO_KL = 4
"""For close distributions, JSD with equal weights is a quarter of the KL: both are quadratic in their distance."""
RISING_WINDOWS, RISING_STEPS = 4, 5
RISEN_AFTER = (RISING_WINDOWS + 1) * RISING_STEPS
"""Steps: the windows, and before them those that they are held against."""
RISEN = 1.25
"""Above where the untrained student was: further from the teacher than before anything was learned."""
ENTROPY_LEFT = 0.5
LENGTHS = (0.6, 1.6)
THOUGHTS, THOUGHTS_LEFT = 0.1, 0.6
"""Share of an answer from which a model thinks before it answers, and what has to stay of it."""
MOST_CUT = 0.1
MOST_EMPTY = 0.2
EMPTY_STEPS, EMPTY_ANSWERS = 2, 16
"""In a row, at least so many of both: with small batches two steps may be so by chance."""
DISTINCT, DISTINCT_LEFT = 0.5, 0.6
CONCENTRATED = 0.5
SAMPLER_GAP = 0.1
"""Nats; an engine of its own beside the trainer comes to a few hundredths, one that shares weights and code to 0."""


def teacher_ignored(watched: Watched) -> str:
    """The first step's divergence is that of the parent's own weights with and without the demonstration."""
    first = watched.reports[0]
    if first.empty_share == 1:
        return ""
    nats = first.loss / (1 - first.empty_share)
    if watched.method.sdft.divergence is Divergence.JSD:
        nats *= JSD_TO_KL
    if nats >= IGNORED_NATS:
        return ""
    return (
        f"with the demonstration in context the teacher says what the student says anyway ({nats:.4f} nats per token "
        f"at the first step, under {IGNORED_NATS}): write demonstrations that help, or choose another "
        "method.sdft.prompt.template"
    )


def divergence_rising(watched: Watched) -> str:
    """Rises over RISING_WINDOWS windows in a row, to above where it began."""
    needed = RISING_WINDOWS * RISING_STEPS
    recent = [report.loss for report in watched.reports[-needed:]]
    means = [fmean(recent[start : start + RISING_STEPS]) for start in range(0, needed, RISING_STEPS)]
    first = watched.early(lambda report: report.loss)
    is_rising = all(one < other for one, other in pairwise(means))
    if not is_rising or means[-1] <= max(RISEN * first, IGNORED_NATS):
        return ""
    return (
        f"the divergence from the teacher has risen for {needed} steps, from {means[0]:.3f} to {means[-1]:.3f} nats "
        f"per token, and began at {first:.3f}: lower method.optimizer.learningRate"
    )


def entropy_collapse(watched: Watched) -> str:
    """Answers become so sure that there is little left to sample. May be the skill: one right answer to a question."""
    first, now = watched.early(lambda report: report.entropy), watched.late(lambda report: report.entropy)
    if now >= ENTROPY_LEFT * first:
        return ""
    return (
        f"the student's entropy fell from {first:.2f} to {now:.2f} nats per token, under {ENTROPY_LEFT:.0%} of the "
        "first: sure answers may be the skill, else train for fewer steps or at a lower learning rate"
    )


def length_drift(watched: Watched) -> str:
    """Answers become much shorter or longer. May be the skill: to answer in one word."""
    first, now = watched.early(lambda report: report.mean_length), watched.late(lambda report: report.mean_length)
    low, high = LENGTHS
    if low * first <= now <= high * first:
        return ""
    return (
        f"sampled answers went from {first:.0f} to {now:.0f} tokens, outside of {low} to {high} times the first: look "
        "whether the skill wants that, else train for fewer steps"
    )


def thoughts_fade(watched: Watched) -> str:
    """A model that thinks before it answers learns to do without, from demonstrations that only answer."""
    first, now = watched.early(lambda report: report.thought_share), watched.late(lambda report: report.thought_share)
    if first < THOUGHTS or now >= THOUGHTS_LEFT * first:
        return ""
    return (
        f"thoughts went from {first:.0%} of a sampled answer to {now:.0%}, under {THOUGHTS_LEFT:.0%} of the first: "
        "write demonstrations that think, too, or turn thoughts off by method.chatTemplateArguments"
    )


def answers_cut(watched: Watched) -> str:
    """Answers that never come to their end are learned without it."""
    share = watched.late(lambda report: report.cut_share)
    if share <= MOST_CUT:
        return ""
    limit = watched.method.rollout.max_new_tokens
    return f"{share:.0%} of sampled answers are cut at {limit} tokens: raise method.rollout.maxNewTokens"


def sampler_differs(watched: Watched) -> str:
    """Answers come token by token with a cache, and are trained on in one pass: two ways to compute the same numbers.

    Where they are not the same, the answers are another model's than the one that is trained.
    """
    gaps = [report.sampler_gap for report in watched.reports[-LATE:] if report.sampler_gap is not None]
    if not gaps or fmean(gaps) <= SAMPLER_GAP:
        return ""
    return (
        f"sampled tokens have other log-probabilities in the pass that trains on them (by {fmean(gaps):.2f} nats on "
        f"average, over {SAMPLER_GAP}): decoding computes another model than training, so report this model, and train "
        "it on another device"
    )


def no_loss_at_all(watched: Watched) -> str:
    """Nothing but such answers: no step changes a weight, so none that follows can be another."""
    steps = max(EMPTY_STEPS, ceil(EMPTY_ANSWERS / watched.method.batch_size))
    if len(watched.reports) < steps or any(report.empty_share < 1 for report in watched.reports[-steps:]):
        return ""
    skip = watched.method.sdft.skip_tokens
    return (
        f"none of the sampled answers of {steps} steps has more than the {skip} tokens that are skipped: nothing is "
        "learned: lower method.sdft.skipTokens, to 0 for answers of one word"
    )


def no_loss(watched: Watched) -> str:
    """What is skipped at the beginning of each answer is all of it."""
    share, skip = watched.late(lambda report: report.empty_share), watched.method.sdft.skip_tokens
    if share <= MOST_EMPTY:
        return ""
    return (
        f"{share:.0%} of sampled answers have no more than the {skip} tokens that are skipped, and teach nothing: "
        "lower method.sdft.skipTokens"
    )


def repetition(watched: Watched) -> str:
    """Answers run in circles: never a skill."""
    first, now = watched.early(lambda report: report.distinct_share), watched.late(lambda report: report.distinct_share)
    if now >= min(DISTINCT, DISTINCT_LEFT * first):
        return ""
    return (
        f"sampled answers repeat themselves: {now:.0%} of their pieces are different ones, {first:.0%} at first: lower "
        "method.optimizer.learningRate or method.sdft.teacher.emaRate"
    )


def loss_concentrated(watched: Watched) -> str:
    """Few tokens, usually words of style ("Sure", "Based on"), are nearly all that is learned."""
    share = watched.late(lambda report: report.top_share)
    if share <= CONCENTRATED:
        return ""
    return (
        f"one token of a hundred carries {share:.0%} of the loss, over {CONCENTRATED:.0%}: demonstrations may teach "
        "a style rather than the skill: word their answers as the model words its own, or raise method.sdft.skipTokens"
    )
