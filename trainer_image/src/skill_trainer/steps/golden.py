"""The golden prompts: what the new version answers, so that serving can be proved to run it and not its parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from skill_contract.manifest import Golden, GoldenSet
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite
from skill_trainer.model import LanguageModel
from skill_trainer.prompts import student_messages
from skill_trainer.rollout import greedy
from skill_trainer.steps.measure import Measurement

EACH = 4
"""Prompts on which parent and new version differ, and as many on which they agree."""
TRIED = 8
"""Of each kind; those are taken whose closest call between two tokens is clearest: other engines round otherwise."""


def golden_set(
    model: LanguageModel, suites: Sequence[Suite], before: Measurement, after: Measurement, *, max_new_tokens: int,
    between: Callable[[], None],
) -> GoldenSet:  # fmt: skip
    """Returns the golden prompts of a new version, telling ones first; asked one at a time, as serving will.

    `between` is called after each.
    """
    answers = list(_answers(suites, before, after))
    chosen: list[Golden] = []
    for differ in (True, False):
        tried = [each for each in answers if (each[1] != each[2]) is differ][:TRIED]
        recorded = [_record(model, record, parent, max_new_tokens, between) for record, parent, _ in tried]
        clearest = sorted(recorded, key=lambda pair: -pair[0])
        fitting = [each for _, each in clearest if each.text and (each.text != each.parent_text) is differ]
        chosen += fitting[:EACH]
    return GoldenSet(prompts=tuple(chosen))


def _answers(suites: Sequence[Suite], before: Measurement, after: Measurement) -> Iterator[tuple[Record, str, str]]:
    """Yields record, parent's and new answer of all questions without tools, which serving takes apart."""
    for suite in suites:
        texts = zip(before.scores[suite.name].texts, after.scores[suite.name].texts, strict=True)
        for record, (parent, new) in zip(suite.records, texts, strict=True):
            if not record.tools:
                yield record, parent, new


def _record(
    model: LanguageModel, record: Record, parent_text: str, max_new_tokens: int, between: Callable[[], None]
) -> tuple[float, Golden]:
    """Returns the margin of the closest call, and the prompt with the model's answer."""
    prompt = model.tokens.encode(student_messages(record))
    (answer,) = greedy(model, [prompt], max_new_tokens=max_new_tokens, between=between)
    return answer.margin, Golden(
        messages=record.messages, text=model.tokens.decode(answer.tokens), parent_text=parent_text,
        token_logprobs=answer.logprobs, max_new_tokens=max_new_tokens,
        chat_template_arguments=dict(model.tokens.arguments),
    )  # fmt: skip
