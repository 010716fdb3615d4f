"""The golden prompts: what the new version answers, so that serving can be proved to run it and not its parent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from skill_contract.manifest import Golden, GoldenSet, ToolCall
from skill_trainer.data import Record
from skill_trainer.data.tools import tool_names
from skill_trainer.evaluate import Suite
from skill_trainer.graders.json_value import NotJsonError
from skill_trainer.graders.tool_call import TAG, calls_in
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
        tried = [each for each in answers if tells(each[2], each[1], each[0].tools) is differ][:TRIED]
        recorded = [_record(model, record, parent, max_new_tokens, between) for record, parent, _ in tried]
        clearest = sorted(recorded, key=lambda pair: -pair[0])
        fitting = [each for _, each in clearest if each.text and _tells(each) is differ]
        chosen += fitting[:EACH]
    return GoldenSet(prompts=tuple(chosen))


def tells(text: str, parent_text: str, tools: Sequence[dict[str, Any]]) -> bool | None:
    """Returns whether answers of the new version and its parent differ, whichever form an engine gives them.

    Some engines answer with the text as it is, others take the tool calls out of it. None where that makes a
    difference: the words around equal calls, and calls that not everybody reads alike.
    """
    calls, parent_calls = calls_of(text, tools), calls_of(parent_text, tools)
    if calls is None or parent_calls is None:
        return None
    if text == parent_text:
        return False
    return True if calls != parent_calls or not calls else None


def calls_of(text: str, tools: Sequence[dict[str, Any]]) -> tuple[ToolCall, ...] | None:
    """Returns the tool calls in an answer; None where it has some that are broken off, or in a form of their own."""
    if TAG not in text and not tools:
        return ()
    names = tool_names(tools)
    try:
        calls = calls_in(text)
    except NotJsonError:
        return None if TAG in text or any(_looks_called(name, text) for name in names) else ()
    if TAG not in text and not all(name in names for name, _ in calls):
        return ()  # an answer in JSON
    return tuple(ToolCall.of(name, arguments) for name, arguments in calls)


def _looks_called(name: str, text: str) -> bool:
    """Returns whether brackets follow a tool's name, as in `find(…)` and `<function=find>{…}`."""
    return re.search(rf"\b{re.escape(name)}\b\W*[(\[{{<]", text) is not None


def _answers(suites: Sequence[Suite], before: Measurement, after: Measurement) -> Iterator[tuple[Record, str, str]]:
    """Yields record, parent's and new answer of all questions that can be asked over the OpenAI API."""
    for suite in suites:
        texts = zip(before.scores[suite.name].texts, after.scores[suite.name].texts, strict=True)
        for record, (parent, new) in zip(suite.records, texts, strict=True):
            if all("function" in tool for tool in record.tools):
                yield record, parent, new


def _tells(golden: Golden) -> bool | None:
    return tells(golden.text, golden.parent_text, golden.tools or ())


def _record(
    model: LanguageModel, record: Record, parent_text: str, max_new_tokens: int, between: Callable[[], None]
) -> tuple[float, Golden]:
    """Returns the margin of the closest call, and the prompt with the model's answer."""
    prompt = model.tokens.encode(student_messages(record), record.tools)
    (answer,) = greedy(model, [prompt], max_new_tokens=max_new_tokens, between=between)
    text = model.tokens.decode(answer.tokens)
    return answer.margin, Golden(
        messages=record.messages, tools=record.tools or None,
        text=text, calls=calls_of(text, record.tools) or None,
        parent_text=parent_text, parent_calls=calls_of(parent_text, record.tools) or None,
        token_logprobs=answer.logprobs, max_new_tokens=max_new_tokens,
        chat_template_arguments=dict(model.tokens.arguments) or None,
    )  # fmt: skip
