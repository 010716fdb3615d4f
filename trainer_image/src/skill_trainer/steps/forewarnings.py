"""What can be said of a run before its first step: that it is too short, or that its answers are. Computes nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from skill_contract.spec import Demonstration, Method
from skill_contract.step import TrainConfig
from skill_trainer.curriculum import Curriculum, num_rehearsed
from skill_trainer.data import Record
from skill_trainer.errors import ConfigInvalid
from skill_trainer.model import ChatTokenizer
from skill_trainer.monitors import too_short_for
from skill_trainer.schedule import warmup_steps
from skill_trainer.steps.chats import unasked_thoughts
from skill_trainer.steps.inputs import Inputs
from skill_trainer.steps.probe import num_probes

FEW_STEPS = 20
"""Twice the default warm-up. What was learned for docs/evidence.md took 24 and more."""
MANY_SHORT = 0.2
"""Share of the demonstrations: what the monitor NoLoss takes for too many, too."""


def forewarnings(config: TrainConfig, inputs: Inputs, curriculum: Curriculum, tokens: ChatTokenizer) -> tuple[str, ...]:
    """Returns one sentence each, with the numbers and the way out."""
    short = _short_answers(inputs, config.method, tokens)
    return (
        *unasked_thoughts(tokens), *_few_steps(config.method, curriculum), *short, *_blind_monitors(config, curriculum),
    )  # fmt: skip


def require_loss(inputs: Inputs, method: Method, tokens: ChatTokenizer) -> None:
    """Raises ConfigInvalid where no answer can be longer than what is skipped, or no demonstration is."""
    limit, skip = method.rollout.max_new_tokens, method.sdft.skip_tokens
    if method.type == "SDFT" and limit <= skip:
        raise ConfigInvalid(
            f"method.rollout.maxNewTokens: {limit}: no answer is longer than method.sdft.skipTokens: {skip}, so none "
            "carries a loss: raise the one or lower the other"
        )
    lengths = _shown_lengths(inputs.train, method, tokens)
    if lengths and max(lengths) <= skip:
        raise ConfigInvalid(
            f"method.sdft.skipTokens: {skip}: all of {len(lengths)} demonstrations have no more "
            f"tokens than are skipped (at most {max(lengths)}, with the end of turn); answers like them carry no loss: "
            "write method.sdft.skipTokens: 0, or demonstrations that say more"
        )


def _blind_monitors(config: TrainConfig, curriculum: Curriculum) -> Iterator[str]:
    steps = curriculum.steps(config.method)
    probes, needing = num_probes(config, steps), defaultdict[str, list[str]](list)
    for signature, needs in too_short_for(config.method, config.gates, steps, probes).items():
        needing[needs].append(signature)
    if needing:
        named = "; ".join(f"{', '.join(names)} (from {needs} on)" for needs, names in needing.items())
        yield f"{steps} steps and {probes} probes are too few for these monitors to look: {named}"


def _few_steps(method: Method, curriculum: Curriculum) -> Iterator[str]:
    steps = curriculum.steps(method)
    if steps >= FEW_STEPS:
        return
    new = method.batch_size - num_rehearsed(method, curriculum.share)
    records, epochs = len(curriculum.new), math.ceil(FEW_STEPS * new / len(curriculum.new))
    made = f"{records} records, {method.epochs} epochs, {new} of them in a step"
    way_out = f"method.epochs: {epochs} or method.steps: {FEW_STEPS}, or a smaller method.batchSize"
    if method.steps:
        made, way_out = "method.steps", f"method.steps: {FEW_STEPS} or more"
    warmup = warmup_steps(steps, method.optimizer)
    cut = "" if warmup == method.optimizer.warmup_steps else f", {warmup} of them warm-up"
    yield f"{steps} step{'s' * (steps > 1)} ({made}{cut}) mostly teach nothing: write {way_out}"


def _short_answers(inputs: Inputs, method: Method, tokens: ChatTokenizer) -> Iterator[str]:
    lengths, skip = _shown_lengths(inputs.train, method, tokens), method.sdft.skip_tokens
    short = sum(length <= skip for length in lengths)
    if short > MANY_SHORT * len(lengths):
        yield (
            f"{short} of {len(lengths)} demonstrations have no more than the {skip} tokens that are skipped, and "
            "answers like them carry no loss: lower method.sdft.skipTokens"
        )


def _shown_lengths(records: Sequence[Record], method: Method, tokens: ChatTokenizer) -> list[int]:
    """Returns the tokens of each demonstration that a teacher will be shown, with the end of turn."""
    if method.type != "SDFT" or method.sdft.prompt.demonstration is Demonstration.EMPTY:
        return []
    return [len(tokens.encode_answer(record.demonstration or "")) for record in records]
