"""What a monitor may look at, and the windows through which it looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from skill_contract.spec import Gates, Method
from skill_trainer.step_report import Probe, StepReport

EARLY = 5
"""Steps that stand for the untrained student: the learning rate is still warming up."""
LATE = 10
"""Steps over which the noise of sampling is averaged."""
APART = EARLY + LATE
"""Steps from which on the early and the late ones are different ones."""

Figure = Callable[[StepReport], float]


@dataclass(frozen=True, slots=True)
class Watched:
    """A run as far as it is."""

    method: Method
    gates: Gates
    skill: str
    """The new skill's suite; all others of a probe are to be kept."""
    before: Probe
    """The parent's answers to the questions of the probes."""
    reports: Sequence[StepReport]
    """Of all steps, at least one."""
    at_end: bool = False
    """Whether the last report's probe is the whole evaluation after training."""

    @property
    def probe(self) -> Probe | None:
        """The last step's probe, if it had one."""
        return self.reports[-1].probe

    def probed(self) -> list[tuple[int, Probe]]:
        """Returns all probes with their steps."""
        return [(report.step, report.probe) for report in self.reports if report.probe]

    def early(self, figure: Figure) -> float:
        """Returns the mean of a figure over the first EARLY steps."""
        return fmean(map(figure, self.reports[:EARLY]))

    def late(self, figure: Figure) -> float:
        """Returns the mean of a figure over the last LATE steps."""
        return fmean(map(figure, self.reports[-LATE:]))


Look = Callable[[Watched], str]
"""Returns one sentence with the figures, the threshold and the way out; '' where all is well."""
