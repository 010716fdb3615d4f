"""The report of one run as a document: everything that its page shows, and nothing that only the page needs."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from skill_contract.evaluation import Evaluation
from skill_contract.manifest import VersionRef
from skill_contract.model import Document
from skill_contract.spec import Gates


def _missing_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_missing_unless_finite)]
"""A measurement; one that is not finite is missing, because JSON has no NaN."""


class StepPoint(Document):
    """One optimiser step."""

    step: int
    loss: Measured = None
    divergence: Measured = None
    """Of student and teacher, nats per token."""
    entropy: Measured = None
    """Of the student on its own samples, nats per token."""
    completion_tokens: Measured = None
    """Mean length of the sampled completions."""
    learning_rate: Measured = None
    gradient_norm: Measured = None
    """Before clipping."""
    seconds: dict[str, float] = Field({})
    """By part: generate, teacher, student, backward, optimizer."""
    scores: dict[str, float] = Field({})
    """Share of right answers by suite, where this step was probed."""


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

    skill: str
    description: str = ""
    parent: VersionRef | None = None
    outcome: str = ""
    """The step's reason, such as `Published` or `SkillForgotten`."""
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
    answers: tuple[SideBySide, ...] = ()
    time_split: dict[str, float] = Field({})
    """Seconds of the whole run by part, in the order in which they are to be shown."""
    warnings: tuple[str, ...] = ()
