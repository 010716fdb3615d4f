"""The teacher's weights. Knows how they follow the student; never what they are used for.

The live student is not offered as its own teacher: it diverges (arXiv 2601.19897, appendix A.3).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from skill_contract.spec import Teacher as TeacherSpec
from skill_contract.spec import TeacherWeights
from skill_trainer.model import LanguageModel


class Teacher(Protocol):
    """A model of its own, in fp32, which starts as the student's copy."""

    model: LanguageModel

    def follow(self, student: LanguageModel) -> None:
        """Called after every optimiser step."""


class Frozen:
    """The student as it was before training."""

    def __init__(self, student: LanguageModel) -> None:
        self.model = student.frozen_copy()

    def follow(self, student: LanguageModel) -> None:
        """Does nothing."""


class Ema:
    """An exponential moving average of the student: phi <- rate * theta + (1 - rate) * phi.

    In fp32, because in bf16 a hundredth of a weight's change is rounded away: at rate 0.01 nine of ten weights would
    never move.
    """

    def __init__(self, student: LanguageModel, rate: float) -> None:
        self.model = student.frozen_copy()
        self._average = get_ema_multi_avg_fn(1 - rate)
        # The first step of an average kept in another precision than the student's would already be a lossy copy.
        assert all(parameter.dtype == torch.float32 for parameter in self.model.parameters())

    def follow(self, student: LanguageModel) -> None:
        """Moves every weight by `rate` towards the student's."""
        theirs: list[Tensor] = [parameter.detach() for parameter in student.parameters()]
        self._average(self.model.parameters(), theirs, None)


def make_teacher(spec: TeacherSpec, student: LanguageModel) -> Teacher:
    """Returns a teacher with the student's present weights."""
    return Frozen(student) if spec.weights is TeacherWeights.FROZEN else Ema(student, spec.ema_rate)
