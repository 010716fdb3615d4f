"""The report of one run as a document: everything that its page shows, and nothing that only the page needs.

docs/report.md describes `report.json` for those who read it by program. Fields are only ever added; another meaning of
one is a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from skill_contract.evaluation import Evaluation
from skill_contract.manifest import VersionRef
from skill_contract.model import Document
from skill_contract.spec import Gates

SCHEMA_VERSION: Literal[1] = 1


def _missing_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_missing_unless_finite)]
"""A measurement; one that is not finite is missing, because JSON has no NaN."""


class StepPoint(Document):
    """One optimiser step."""

    step: int
    """Steps done, this one included."""
    loss: Measured = None
    divergence: Measured = None
    """Of student and teacher, nats per token."""
    entropy: Measured = None
    """Of the student on its own samples, nats per token."""
    completion_tokens: Measured = None
    """Mean length of the sampled completions."""
    thought_share: Measured = None
    """Share of a sampled answer that is thought, 0 to 1; None in a run without thoughts."""
    cut_share: Measured = None
    """Share of completions that were cut at the limit of new tokens, 0 to 1."""
    distinct_share: Measured = None
    """Share of the answers' pieces of three tokens that are not a repetition within their answer, 0 to 1."""
    top_share: Measured = None
    """Share of the loss in the one token of a hundred that carries most of it, 0 to 1."""
    sampler_gap: Measured = None
    """Mean difference of the log-probabilities of sampled tokens, when sampled and when trained on, nats."""
    learning_rate: Measured = None
    gradient_norm: Measured = None
    """Before clipping."""
    seconds: dict[str, float] = Field({})
    """By part: generate, teacher, student, backward, optimizer."""
    scores: dict[str, float] = Field({})
    """Share of right answers by suite, 0 to 1, where this step was probed."""
    drift: Measured = None
    """By how much less probable the parent's own answers are, where this step was probed, nats per token."""
    teacher_drift: Measured = None
    """The same of an averaged teacher."""


class Drift(Document):
    """How far the new version is from an earlier one."""

    version: str
    nats: float
    """By how much less probable that one's own answers have become, nats per token."""
    questions: int
    """To which they were."""


class ShownAgain(Document):
    """Questions asked with their demonstrations in the context: the parent before training, the new version after."""

    n: int
    before: int
    """Right answers of the parent: those of the gate `inContextGain`."""
    after: int
    low: float
    high: float
    """Bounds of the 95 % interval of the change, as a share of `n`."""
    seconds: float
    """That asking the new version took."""


class Mark(Document):
    """Something that a monitor saw during training."""

    step: int
    monitor: str
    """Its name: letters, digits, hyphens."""
    message: str
    """One sentence: what was measured, the threshold, what it means."""
    stopped: bool = False
    """Whether training ended because of it."""


class DataSet(Document):
    """One file or stored suite: how much it is, and what is twice in it."""

    name: str
    role: Literal["training", "rehearsal", "held-out", "retention", "inherited"]
    """Inherited suites come from the parent: those of the skills that it learned before."""
    records: int
    repeated: int = 0
    """Records whose question, normalised, stands in an earlier one."""
    grader: str = ""
    """For the records that name none of their own; empty for training data."""
    prompt_tokens: int = 0
    """Of all prompts together, as the student reads them."""
    longest_prompt: int = 0
    """Tokens."""
    longest_teacher_prompt: int = 0
    """Tokens of the longest prompt with its demonstration; 0 where there is none."""


class SideBySide(Document):
    """One question with the answers of the parent and of the new version."""

    suite: str
    prompt: str
    expected: str
    before: str
    after: str
    right_before: bool
    right_after: bool


class RunReport(Document):
    """`report.json`; `report.html` shows the same."""

    schema_version: Literal[1] = SCHEMA_VERSION
    skill: str
    description: str = ""
    created: str = ""
    """When the run began, RFC 3339, UTC."""
    parent: VersionRef | None = None
    outcome: str = ""
    """The step's reason, such as `Published` or `SkillForgotten`."""
    message: str = ""
    """The step's message, where it ended without an evaluation."""
    evaluation: Evaluation | None = None
    gates: Gates = Gates()
    settings: dict[str, Any] = Field({})
    """The whole configuration as plain JSON values."""
    digests: dict[str, str] = Field({})
    """By what was hashed: data, content, parent, prompt template."""
    code_version: str = ""
    environment: dict[str, str] = Field({})
    """Device, number of threads, versions of libraries."""
    seed: int | None = None
    series: tuple[StepPoint, ...] = ()
    """Empty where nothing was trained."""
    chosen_step: int | None = None
    """The step whose weights were scored, where that is not the last one."""
    marks: tuple[Mark, ...] = ()
    data: tuple[DataSet, ...] = ()
    answers: tuple[SideBySide, ...] = ()
    """A selection: lost ones first, then those that stay wrong, learned ones, kept ones."""
    weights: dict[str, float] = Field({})
    """As they are published, beside the parent's: `moved`, the share of other numbers, 0 to 1; `distance`, the norm of
    the change as a share of the parent's. Empty where nothing was trained."""
    drift: tuple[Drift, ...] = ()
    """From the parent, and from the first of its lineage whose answers are known, where that is another."""
    shown_again: ShownAgain | None = None
    """None where the in-context gain was not measured."""
    time_split: dict[str, float] = Field({})
    """Seconds of the whole run by part, in the order in which they are to be shown."""
    warnings: tuple[str, ...] = ()
