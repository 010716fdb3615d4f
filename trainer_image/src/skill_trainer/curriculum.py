"""What a run teaches, step by step: the new skill's examples and, where asked for, those of earlier skills beside them.

Pure: which examples a step sees is a function of its number, so a resumed run has nothing to restore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from skill_contract.spec import Method
from skill_trainer.errors import ConfigInvalid
from skill_trainer.prompts import Example
from skill_trainer.schedule import batch_indices


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Examples to learn from; at least one of the new skill."""

    new: Sequence[Example]
    rehearsed: Sequence[Example] = ()
    """Of earlier skills, taught again so that they are not forgotten."""
    share: float = 0.0
    """Of each batch that is rehearsed: more than 0 and less than 1 where something is, else 0."""

    @property
    def examples(self) -> Sequence[Example]:
        """All of them, the new ones first."""
        return [*self.new, *self.rehearsed]

    def steps(self, method: Method) -> int:
        """Returns how many steps a run has; raises ConfigInvalid as `total_steps` does."""
        return total_steps(method, len(self.new), self.share)

    def batch(self, step: int, method: Method) -> list[Example]:
        """Returns the examples of a step (from 0): each kind goes through shuffled epochs of its own.

        Raises:
            ConfigInvalid: where a batch has no room for both kinds.
        """
        again = num_rehearsed(method, self.share)
        new = batch_indices(step, method.batch_size - again, len(self.new), method.seed)
        old = batch_indices(step, again, len(self.rehearsed), method.seed, "rehearsal") if again else []
        return [*(self.new[index] for index in new), *(self.rehearsed[index] for index in old)]


def total_steps(method: Method, num_new: int, share: float = 0.0) -> int:
    """Returns `steps` where given, else as many as it takes to see every new example `epochs` times.

    Raises:
        ConfigInvalid: where a batch has no room for what is rehearsed beside what is new.
    """
    return method.steps or math.ceil(num_new * method.epochs / (method.batch_size - num_rehearsed(method, share)))


def num_rehearsed(method: Method, share: float) -> int:
    """Returns how many examples of a batch are rehearsed: their share, rounded, but some of both kinds.

    Raises:
        ConfigInvalid: where a batch has no room for both.
    """
    if not share:
        return 0
    if method.batch_size < 2:
        raise ConfigInvalid("method.batchSize: 1 has no room for data.rehearsal beside the new skill: write 2 or more")
    return min(method.batch_size - 1, max(1, round(share * method.batch_size)))
