"""The teacher's weights. Knows how they follow the student; never what they are used for.

The live student is not offered as its own teacher: it diverges (arXiv 2601.19897, appendix A.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from skill_contract.spec import Teacher as TeacherSpec
from skill_contract.spec import TeacherWeights
from skill_trainer.model import LanguageModel


class Teacher(Protocol):
    """A model in fp32 which starts with the student's weights."""

    model: LanguageModel

    def follow(self, student: LanguageModel) -> None:
        """Called after every optimiser step."""

    def state(self) -> dict[str, Tensor]:
        """Returns, by name, what of it changes: what a checkpoint has to hold."""


class Frozen:
    """The student as it was before training: a copy, or for an adapter the very same network without it."""

    def __init__(self, student: LanguageModel) -> None:
        self.model = _AdapterOff(student) if student.adapter else student.frozen_copy()

    def follow(self, student: LanguageModel) -> None:
        """Does nothing."""

    def state(self) -> dict[str, Tensor]:
        """Nothing: every attempt makes it again from the parent."""
        return {}


class Ema:
    """An exponential moving average of the student: phi <- rate * theta + (1 - rate) * phi.

    Theta are the weights that the student computes with: of an adapter, W + (alpha / rank) B A. The average of such
    products is not the product of averages, and no low-rank one: so the teacher has the adapted layers as full matrices
    of its own, and shares all others with the student.

    In fp32, because in bf16 a hundredth of a weight's change is rounded away: at rate 0.01 nine of ten weights would
    never move.
    """

    def __init__(self, student: LanguageModel, rate: float) -> None:
        self.model = student.frozen_copy()
        self._rate = rate
        self._names = [name for name, _ in student.effective_weights()]
        # The first step of an average kept in another precision than the student's would already be a lossy copy.
        assert all(weight.dtype == torch.float32 for weight in self.state().values())

    @torch.no_grad()
    def follow(self, student: LanguageModel) -> None:
        """Moves every weight by `rate` towards the student's."""
        mine = self.state()
        for name, theirs in student.effective_weights():
            mine[name].lerp_(theirs, self._rate)

    def state(self) -> dict[str, Tensor]:
        """All weights that the student's training changes."""
        weights = self.model.named_parameters()
        return {name: weights[name] for name in self._names}


class _AdapterOff(LanguageModel):
    """The student's own network, asked without its adapter."""

    def __init__(self, student: LanguageModel) -> None:
        super().__init__(student.network, student.tokens, student.adapter)

    def hidden_rows(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> Tensor:
        """As the student's, but of the parent's weights."""
        assert self.adapter
        with self.adapter.off():
            return super().hidden_rows(sequences, first)


def make_teacher(spec: TeacherSpec, student: LanguageModel) -> Teacher:
    """Returns a teacher with the student's present weights."""
    return Frozen(student) if spec.weights is TeacherWeights.FROZEN else Ema(student, spec.ema_rate)
