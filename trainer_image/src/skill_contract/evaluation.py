"""The result of the gates, as it appears in the manifest, the termination message and the status."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from skill_contract.model import Count, Document, Number


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
    n: Count
    normalized: float
    """`after / before`, the seed's retention measure; 1 where `before` is 0."""
    verdict: Verdict
    needed: Count = 0
    """Where the verdict is Inconclusive: the number of items that would be enough, by the observed effect."""
    reason: str = ""
    """One sentence: the bound that was compared, the threshold, the way out."""


class Signature(StrEnum):
    """What a training run that goes wrong looks like from inside."""

    TEACHER_IGNORED = "TeacherIgnored"
    """The teacher says the same with the demonstration as the untrained student without."""
    DIVERGENCE_RISING = "DivergenceRising"
    """The student moves away from its teacher."""
    FEEDBACK_COLLAPSE = "FeedbackCollapse"
    """Student and teacher agree better and better, on worse and worse answers."""
    TEACHER_DRIFT = "TeacherDrift"
    """An averaged teacher has gone far from where it began."""
    ENTROPY_COLLAPSE = "EntropyCollapse"
    LENGTH_DRIFT = "LengthDrift"
    THOUGHTS_FADE = "ThoughtsFade"
    """A model that thinks before it answers thinks less."""
    ANSWERS_CUT = "AnswersCut"
    NO_LOSS = "NoLoss"
    """Answers no longer than what is skipped teach nothing."""
    REPETITION = "Repetition"
    LOSS_CONCENTRATED = "LossConcentrated"
    SAMPLER_DIFFERS = "SamplerDiffers"
    """What samples the answers gives their tokens other probabilities than what is trained on them."""
    LEAKED_PHRASES = "LeakedPhrases"
    """Answers that speak of an example which only the teacher was shown."""
    RETENTION_DROP = "RetentionDrop"
    FORGETTING = "Forgetting"
    """A retention drop that stays."""
    NOTHING_LEARNED = "NothingLearned"
    """Every answer is still the parent's."""


class Action(StrEnum):
    STOP = "Stop"
    """Training ends here; the best state so far is evaluated."""
    MARK = "Mark"
    """Said, and nothing else."""


class Alarm(Document):
    """A signature that was seen during training, at the first step at which it was."""

    signature: Signature
    step: Number
    action: Action
    message: str = Field(max_length=512)
    """One sentence: the figures, the threshold, the way out."""


class Evaluation(Document):
    """All gates of one update."""

    in_context_gain: Comparison | None = None
    """Teacher (demonstration in context) as `after`, student as `before`."""
    new_skill: Comparison | None = None
    retention: tuple[Comparison, ...] = Field((), max_length=4096)
    worst_retention: float | None = None
    """The smallest `normalized` of all retention suites."""
    step: Number | None = None
    """The step whose weights were evaluated: the best one that was probed, the last one where none was."""
    alarms: tuple[Alarm, ...] = ()
    verdict: Verdict

    @field_validator("retention")
    @classmethod
    def _each_suite_once(cls, suites: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
        if len({suite.suite for suite in suites}) < len(suites):
            raise ValueError("two suites have the same name")
        return suites

    @field_validator("alarms")
    @classmethod
    def _each_signature_once(cls, alarms: tuple[Alarm, ...]) -> tuple[Alarm, ...]:
        if len({alarm.signature for alarm in alarms}) < len(alarms):
            raise ValueError("two alarms have the same signature")
        return alarms

    def abridged(self) -> Evaluation:
        """Returns the same evaluation with the worst retention suite and the first alarms only, briefly.

        For places of bounded size.
        """
        worst = sorted(self.retention, key=lambda suite: (suite.verdict == Verdict.PASSED, suite.normalized))
        brief = tuple(each.model_copy(update={"message": each.message[:120]}) for each in self.alarms[:4])
        return self.model_copy(update={"retention": tuple(worst[:1]), "alarms": brief})
