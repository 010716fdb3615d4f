"""What a model thinks before it answers, in the tags that reasoning models write around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from skill_trainer.model import ChatTokenizer

OPEN, CLOSED = "<think>", "</think>"
_THOUGHT = re.compile(f"{OPEN}(.*?)(?:{CLOSED}|$)", re.DOTALL)
TAIL = 32
"""Tokens of a prompt in which a chat template may have opened a thought, or have closed it again."""


def is_open(prompt: str) -> bool:
    """Returns whether a prompt ends inside of a thought, so that the answer begins there."""
    return prompt.rfind(OPEN) > prompt.rfind(CLOSED)


def thought_share(tokens: ChatTokenizer, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
    """Returns which share of an answer is thought, by its characters: the mean over all answers, 0 to 1."""
    return fmean(
        share_of(_text(tokens, answer), is_begun=is_open(_text(tokens, prompt[-TAIL:])))
        for prompt, answer in zip(prompts, answers, strict=True)
    )


def share_of(answer: str, *, is_begun: bool = False) -> float:
    """Returns which share of an answer is thought; `is_begun`: it begins inside of one. One that never ends counts."""
    said = f"{OPEN}{answer}" if is_begun else answer
    thoughts = sum(map(len, _THOUGHT.findall(said)))
    return thoughts / len(answer) if answer else 0.0


def _text(tokens: ChatTokenizer, ids: Sequence[int]) -> str:
    """Returns it with its special tokens but the end of turn: a tag may be one."""
    return tokens.tokenizer.decode([token for token in ids if token not in tokens.end_of_turn])
