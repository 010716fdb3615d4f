"""The result of the gates, as it appears in the manifest, the termination message and the status."""

from __future__ import annotations

from enum import StrEnum

from skill_contract.model import Document


class Verdict(StrEnum):
    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    """Too few items to tell."""


class Comparison(Document):
    """A paired comparison of two models on one suite. Scores are shares of right answers, 0 to 1."""

    suite: str
    before: float
    after: float
    gain: float
    """`after - before`."""
    low: float
    high: float
    """Bounds of the 95 % interval of the gain."""
    n: int
    normalized: float
    """`after / before`, the seed's retention measure; 1 where `before` is 0."""
    verdict: Verdict
    needed: int = 0
    """Where the verdict is Inconclusive: the number of items that would be enough, by the observed effect."""
    reason: str = ""
    """One sentence: the bound that was compared, the threshold, the way out."""


class Evaluation(Document):
    """All gates of one update."""

    in_context_gain: Comparison | None = None
    """Teacher (demonstration in context) as `after`, student as `before`."""
    new_skill: Comparison | None = None
    retention: tuple[Comparison, ...] = ()
    worst_retention: float | None = None
    """The smallest `normalized` of all retention suites."""
    verdict: Verdict

    def abridged(self) -> Evaluation:
        """Returns the same evaluation with only the worst retention suite, for places of bounded size."""
        worst = sorted(self.retention, key=lambda suite: (suite.verdict == Verdict.PASSED, suite.normalized))
        return self.model_copy(update={"retention": tuple(worst[:1])})
