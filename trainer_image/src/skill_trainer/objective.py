"""What a step learns from: SDFT, or the SFT baseline. One class each; the loop is the same for both.

An objective says which answers a batch is trained on and what the student's distribution is compared with on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from skill_contract.spec import Method
from skill_trainer.device import precision
from skill_trainer.divergence import MEASURES, Measure, Target, cross_entropy, teacher_target
from skill_trainer.model import LanguageModel
from skill_trainer.packing import common_prefix
from skill_trainer.prompts import Example
from skill_trainer.rollout import sample
from skill_trainer.schedule import generator
from skill_trainer.teacher import Teacher, make_teacher


@dataclass(frozen=True, slots=True)
class Item:
    """An example with the answer that it is trained on."""

    example: Example
    answer: tuple[int, ...]
    """Token ids with the end of turn, if the answer has come to it."""
    finished: bool = True
    logprobs: tuple[float, ...] = ()
    """Of each token when it was sampled, at temperature 1, nats; empty where nothing was sampled."""


class Objective(Protocol):
    measure: Measure
    skip: int
    """First tokens of each answer without loss."""
    temperature: float
    teacher: Teacher | None

    def items(self, batch: Sequence[Example], rows: Sequence[int], student: LanguageModel, step: int) -> list[Item]:
        """Returns these rows of the batch with the answers to train on, whoever asks for the other rows."""

    def target(self, part: Sequence[Item]) -> Target:
        """Returns what the student is compared with on the loss rows of `part`."""

    def longest(self, item: Item) -> int:
        """Returns the tokens of the longest sequence that the item costs: what batches are cut by."""

    def shared(self, items: Sequence[Item]) -> int:
        """Returns how many tokens these longest sequences all begin with and are computed once."""


class Sdft:
    """The student's own answers, scored by the teacher, who has seen the demonstration.

    Source: arXiv 2601.19897, algorithm 1; temperature in both, as in the authors' code.
    """

    def __init__(self, method: Method, student: LanguageModel) -> None:
        self.measure = MEASURES[method.sdft.divergence]
        self.skip = method.sdft.skip_tokens
        self._packs = student.packs
        self.temperature = method.rollout.temperature
        self.teacher: Teacher | None = make_teacher(method.sdft.teacher, student)
        self._method = method

    def items(self, batch: Sequence[Example], rows: Sequence[int], student: LanguageModel, step: int) -> list[Item]:
        """Returns one sample per prompt from the student as it is now."""
        answers = sample(
            student, [example.student for example in batch], max_new_tokens=self._method.rollout.max_new_tokens,
            temperature=self.temperature, generator=generator(self._method.seed, "rollout", step), rows=rows,
        )  # fmt: skip
        pairs = zip(rows, answers, strict=True)
        return [Item(batch[row], answer.tokens, answer.finished, answer.logprobs) for row, answer in pairs]

    @torch.no_grad()
    def target(self, part: Sequence[Item]) -> Target:
        """Returns the teacher's distributions after (x, c, y<t) for the same token ids y."""
        assert self.teacher is not None
        sequences = [(*item.example.teacher, *item.answer[:-1]) for item in part]
        first = [len(item.example.teacher) - 1 + self.skip for item in part]
        hidden_RD = self.teacher.model.hidden_rows(sequences, first)
        with precision(hidden_RD.device):
            return teacher_target(hidden_RD, self.teacher.model.head, self.temperature)

    def longest(self, item: Item) -> int:
        """The teacher's prompt is the longer one."""
        return len(item.example.teacher) + len(item.answer)

    def shared(self, items: Sequence[Item]) -> int:
        """A system message, tools."""
        return common_prefix([item.example.teacher for item in items]) if self._packs else 0


class Sft:
    """Cross-entropy on the demonstrations: the baseline that shows what SDFT buys."""

    measure: Measure = staticmethod(cross_entropy)
    skip = 0
    temperature = 1.0
    teacher: Teacher | None = None

    def __init__(self, student: LanguageModel) -> None:
        self._device, self._packs = student.device, student.packs

    def items(self, batch: Sequence[Example], rows: Sequence[int], student: LanguageModel, step: int) -> list[Item]:  # noqa: ARG002
        """Returns the demonstrations."""
        return [Item(batch[row], tuple(batch[row].target)) for row in rows]

    def target(self, part: Sequence[Item]) -> Target:
        """Returns the demonstrations' tokens."""
        token_R = torch.tensor([token for item in part for token in item.answer], device=self._device)
        return lambda rows: token_R[rows]

    def longest(self, item: Item) -> int:
        """There is one sequence only."""
        return len(item.example.student) + len(item.answer)

    def shared(self, items: Sequence[Item]) -> int:
        """A system message, tools."""
        return common_prefix([item.example.student for item in items]) if self._packs else 0


def make_objective(method: Method, student: LanguageModel) -> Objective:
    """Returns the method's objective; a teacher starts with the student's present weights."""
    return Sft(student) if method.type == "SFT" else Sdft(method, student)
