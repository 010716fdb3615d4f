"""What the train step's rank 0 says about itself at GET /progress."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from skill_contract.evaluation import Alarm
from skill_contract.model import Count, Document


class Stage(StrEnum):
    LOADING = "Loading"
    GATING = "Gating"
    """Measuring the in-context gain and the scores before training."""
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    PUBLISHING = "Publishing"


LAST_SECOND = 253_402_300_799.0
"""Unix time of the end of the year 9999, after which there is no RFC 3339."""


class Progress(Document):
    stage: Stage
    step: Count = 0
    total: Count = 0
    eta_seconds: float | None = Field(None, ge=0, lt=2**53)
    loss: float | None = None
    divergence: float | None = None
    tokens_per_second: float | None = None
    last_checkpoint: Count | None = None
    """Step of the newest complete checkpoint."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Newest share of right answers by gate; `probe_new_skill` and `probe_retention` are those of the last probe."""
    alarms: tuple[Alarm, ...] = ()
    """All that the monitors have seen so far."""
    heartbeat: float = Field(ge=0, le=LAST_SECOND)
    """Unix time at which the trainer last made progress."""
