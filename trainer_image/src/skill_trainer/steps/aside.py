"""What is measured of a new version beside its gates: it changes no verdict, and stands in the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from skill_trainer.model import LanguageModel
from skill_trainer.report import Drift, ShownAgain
from skill_trainer.steps.drift import Answers, first_answers, measure_drifts
from skill_trainer.steps.ground import Ground
from skill_trainer.steps.measure import Gain, measure_shown_again
from skill_trainer.steps.moved import hardly_moved, moved_weights
from skill_trainer.steps.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Aside:
    moved: dict[str, float] = field(default_factory=dict)
    """How far its weights are from the parent's."""
    drift: tuple[Drift, ...] = ()
    """How far its answers are."""
    first: Answers | None = None
    """By which those who train from it will know how far they are from the first of the lineage."""
    shown_again: ShownAgain | None = None

    def warnings(self) -> Iterator[str]:
        """Yields one sentence each."""
        yield from hardly_moved(self.moved)
        again = self.shown_again
        if again and again.high < 0:
            yield (
                f"with the demonstration in its context the new version answers {again.after} of {again.n} questions "
                f"rightly, and its parent {again.before}: who serves it with examples in the prompt gets less than "
                "before: train for fewer steps, or at a lower method.optimizer.learningRate"
            )


def measure_aside(work: Workplace, model: LanguageModel, ground: Ground, gain: Gain | None, answers: Answers) -> Aside:
    """Returns it of a model with the weights that are going to be published; `answers` are the parent's."""
    first = first_answers(ground, answers)
    return Aside(
        moved=work.crew.first(lambda: moved_weights(model, ground.parent)),
        drift=measure_drifts(work, model, answers, first),
        first=first,
        shown_again=measure_shown_again(work, model, gain) if gain else None,
    )
