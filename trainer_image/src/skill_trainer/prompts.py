"""What the student and the teacher read. Pure: from a record to token ids, by the tokenizer that it is given.

The student reads the prompt x; the teacher reads (x, c), the same prompt with the record's demonstration c. Nothing is
ever truncated: a teacher that cannot see the end of its demonstration, or the student's question, teaches nonsense.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from skill_contract.spec import Demonstration, PromptTemplate
from skill_trainer.data import Record
from skill_trainer.errors import ConfigInvalid, PromptTooLong
from skill_trainer.schedule import generator

Message = dict[str, Any]
Encode = Callable[[Sequence[Message], Sequence[dict[str, Any]]], list[int]]
"""From chat messages and tools to the token ids of the prompt, up to where the assistant's answer begins."""

PAPER = (
    "\n{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process.\n"
)
"""Source: arXiv 2601.19897, section 3, with the line breaks of the authors' released code."""

_PLACE = re.compile("{(question|demonstration)}")

AGAIN = "Now answer the request above again."
"""The user's new turn where the prompt ends in a tool's result, which cannot be said twice."""


@dataclass(frozen=True, slots=True)
class Example:
    """One record, tokenised; in arrays, as all of a run's stay in memory: a token in a list takes 36 bytes."""

    id: str
    student: Sequence[int]
    """Token ids of x."""
    teacher: Sequence[int]
    """Token ids of (x, c)."""
    target: Sequence[int]
    """Token ids of the completion and the end of turn: what the SFT baseline learns; SDFT never looks at them."""
    weight: float = 1.0


def student_messages(record: Record) -> list[Message]:
    """Returns x as chat messages."""
    return list(record.messages)


def teacher_messages(
    record: Record, template: PromptTemplate, demonstration: str | None = None, *, text: str = ""
) -> list[Message]:
    """Returns (x, c) as chat messages.

    `Default` shows the demonstration as the assistant's previous turn and asks the same question again; `Paper` and
    `Own` put it into the last user turn. After a tool's result all add a user turn of their own.

    Args:
        demonstration: instead of the record's own, for the control with another record's.
        text: the wording of `Own`.
    """
    shown = demonstration if demonstration is not None else record.demonstration
    if shown is None:
        raise ValueError(f"record {record.id!r} has no demonstration to show")
    *before, last = record.messages
    ends_in_user_turn = last["role"] == "user"
    if template is not PromptTemplate.DEFAULT:
        own = {"question": last["content"] if ends_in_user_turn else "", "demonstration": shown}
        turn = {"role": "user", "content": _PLACE.sub(lambda place: own[place[1]], _wording(template, text))}
        return [*before, turn] if ends_in_user_turn else [*record.messages, turn]
    again = last if ends_in_user_turn else {"role": "user", "content": AGAIN}
    return [*record.messages, {"role": "assistant", "content": shown}, again]


def template_digest(template: PromptTemplate, text: str = "") -> str:
    """Returns `sha256:<hex>` of a template's wording, so that a report says which words were in force."""
    chat = f"(x, assistant: c, last of x | {AGAIN})"
    wording = chat if template is PromptTemplate.DEFAULT else _wording(template, text)
    return "sha256:" + hashlib.sha256(wording.encode()).hexdigest()


def _wording(template: PromptTemplate, text: str) -> str:
    if template is PromptTemplate.PAPER:
        return PAPER
    if not text:
        raise ValueError("template Own has no text")
    return text


def shown_demonstrations(records: Sequence[Record], choice: Demonstration, seed: int) -> list[str | None]:
    """Returns the demonstration that the teacher sees with each record; None where a record has none.

    `Shuffled` hands all of them round, by the seed, so that no record is shown its own words.

    Raises:
        ConfigInvalid: where more than half of the demonstrations are the same words, which cannot be shuffled so.
    """
    own = [record.demonstration for record in records]
    if choice is Demonstration.OWN or not own:  # nothing may be rehearsed
        return own
    if choice is Demonstration.EMPTY:
        return ["" for _ in own]
    copies = max(Counter(own).values())
    if 2 * copies > len(own):
        raise ConfigInvalid(
            f"method.sdft.prompt.demonstration: Shuffled: {copies} of {len(own)} records have the same demonstration, "
            "so some would keep their own: use data with different ones, or Empty"
        )
    # With equal words side by side, what lies as many places further as there are copies is another's; then by chance.
    order = sorted(range(len(own)), key=lambda place: own[place] or "")
    taken = {place: own[order[(number + copies) % len(own)]] for number, place in enumerate(order)}
    partners = torch.randint(len(own), (len(own),), generator=generator(seed, "shuffled demonstrations", 0)).tolist()
    for place, other in enumerate(partners):
        if taken[other] != own[place] and taken[place] != own[other]:
            taken[place], taken[other] = taken[other], taken[place]
    return [taken[place] for place in range(len(own))]


def tokenize(
    record: Record, template: PromptTemplate, encode: Encode, target: Sequence[int], demonstration: str | None = None,
    *, text: str = "",
) -> Example:  # fmt: skip
    """Returns the record's token ids.

    Args:
        target: token ids of its completion, which only the SFT baseline reads.
        demonstration: what the teacher is shown instead of the record's own.
        text: the wording of template `Own`.
    """
    return Example(
        id=record.id,
        student=array("i", encode(student_messages(record), record.tools)),
        teacher=array("i", encode(teacher_messages(record, template, demonstration, text=text), record.tools)),
        target=array("i", target),
        weight=record.weight,
    )


def require_fit(prompts: Sequence[tuple[str, int]], *, context: int, max_new_tokens: int) -> None:
    """Makes sure that every prompt leaves room for an answer of `max_new_tokens`.

    Args:
        prompts: name ("record 'r7', the teacher's prompt") and number of tokens of each.
        context: the model's maximum number of tokens.

    Raises:
        PromptTooLong: with the numbers of the longest one and the count of the others.
    """
    room = context - max_new_tokens
    too_long = sorted((prompt for prompt in prompts if prompt[1] > room), key=lambda prompt: -prompt[1])
    if too_long:
        name, tokens = too_long[0]
        others = f" ({len(too_long) - 1} more are too long, too)" if len(too_long) > 1 else ""
        raise PromptTooLong(
            f"{name} has {tokens} tokens; with {max_new_tokens} new ones that is {tokens + max_new_tokens}, but the "
            f"model's context is {context}{others}: shorten the prompt or its demonstration, or lower "
            "method.rollout.maxNewTokens. Nothing is ever truncated"
        )
