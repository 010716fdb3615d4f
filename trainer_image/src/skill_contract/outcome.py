"""How a step answers: a termination message of at most 4096 bytes, and an exit code."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

from pydantic import Field

from skill_contract.evaluation import Evaluation
from skill_contract.manifest import DIGEST_PATTERN, VERSION_PATTERN, VersionRef
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
    reason: str = Field(pattern="^[A-Z][A-Za-z0-9]*$", max_length=64)
    """CamelCase, becomes the reason of a condition (meta/v1 Condition refuses other forms)."""
    message: str
    """One sentence with the offending value and the way out."""
    version: str = Field("", pattern=f"^({VERSION_PATTERN})?$")
    """`check`: the parent. `train`, `promote`: the version that was published or promoted."""
    digest: str = Field("", pattern=f"^({DIGEST_PATTERN})?$")
    published: VersionRef | None = None
    """`check`: the version that was made of the very same before and is not the head; with its `evaluation`."""
    evaluation: Evaluation | None = None
    details: dict[str, Any] = Field(default_factory=dict)

    def encode(self) -> bytes:
        """Returns the JSON of this outcome in at most MAX_BYTES.

        What does not fit goes in this order: details, all retention suites but the worst, the end of the message.
        """
        for shorter in (self, self._without_details(), self._with_worst_suite()):
            if len(shorter.dump_json().encode()) <= MAX_BYTES:
                return shorter.dump_json().encode()
        return self._with_short_message().dump_json().encode()

    def _without_details(self) -> Outcome:
        return self.model_copy(update={"details": {}})

    def _with_worst_suite(self) -> Outcome:
        return self._without_details().model_copy(
            update={"evaluation": self.evaluation.abridged() if self.evaluation else None}
        )

    def _with_short_message(self) -> Outcome:
        """Returns the longest beginning of the message that fits, found by halving: bytes per character differ."""
        shortest, longest = 0, len(self.message)
        while shortest < longest:
            middle = (shortest + longest + 1) // 2
            if len(self._cut(middle).dump_json().encode()) <= MAX_BYTES:
                shortest = middle
            else:
                longest = middle - 1
        return self._cut(shortest)

    def _cut(self, characters: int) -> Outcome:
        return self._with_worst_suite().model_copy(update={"message": self.message[:characters] + "…"})
