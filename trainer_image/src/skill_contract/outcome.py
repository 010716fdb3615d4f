"""How a step answers: a termination message of at most 4096 bytes, and an exit code."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

from skill_contract.evaluation import Evaluation
from skill_contract.model import Document
from skill_contract.step import Step

TERMINATION_LOG = "/dev/termination-log"
MAX_BYTES = 4096
"""Kubernetes keeps this much of a termination message (core/v1 Container.terminationMessagePath)."""


class ExitCode(IntEnum):
    FINISHED = 0
    """The step did its work; the outcome says with what result."""
    USER_ERROR = 42
    """Data, configuration or credentials: a retry cannot help."""
    PREEMPTED = 75
    """Stopped on SIGTERM after a checkpoint: to be restarted without counting."""


class Result(StrEnum):
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"
    PREEMPTED = "Preempted"


class Outcome(Document):
    """The last word of a step."""

    step: Step
    outcome: Result
    reason: str
    """CamelCase, becomes the reason of a condition."""
    message: str
    """One sentence with the offending value and the way out."""
    version: str = ""
    """`check`: the parent. `train`, `promote`: the version that was published or promoted."""
    digest: str = ""
    evaluation: Evaluation | None = None
    details: dict[str, Any] = {}

    def encode(self) -> bytes:
        """Returns the JSON of this outcome in at most MAX_BYTES.

        What does not fit goes in this order: details, all retention suites but the worst, the end of the message.
        """
        shorter = self
        if len(shorter._bytes()) > MAX_BYTES:
            shorter = shorter.model_copy(update={"details": {}})
        if len(shorter._bytes()) > MAX_BYTES and shorter.evaluation:
            shorter = shorter.model_copy(update={"evaluation": shorter.evaluation.abridged()})
        excess = len(shorter._bytes()) - MAX_BYTES
        if excess > 0:
            # Every character is at most twelve bytes of JSON (a surrogate pair, escaped); cutting too much is harmless.
            keep = max(0, len(shorter.message) - excess - 3)
            shorter = shorter.model_copy(update={"message": shorter.message[:keep] + "…"})
        return shorter._bytes()

    def _bytes(self) -> bytes:
        return self.dump_json().encode()
