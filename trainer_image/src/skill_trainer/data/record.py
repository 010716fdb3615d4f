"""One record of the user's data, and the error that names a bad one. Reads nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skill_contract.spec import GraderName

Kind = Literal["train", "evaluation"]
"""Training data have a completion each; evaluation data something to grade by."""


class DataError(ValueError):
    """The user's data cannot be used: a retry cannot help. The message names file, line, field and the way out."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """CamelCase: `DataInvalid`, `DataMissing` or `DuplicatesFound`."""
        self.message = message


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field, and the way out."""

    field: str
    reason: str


class BadRecordError(ValueError):
    """What stands in one place of a file is no record."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.reason}" for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt with what is known about its answer."""

    id: str
    messages: tuple[dict[str, Any], ...]
    """The prompt as chat messages, without the demonstration."""
    demonstration: str | None = None
    """What the teacher is shown; the completion where the data name nothing else."""
    completion: str | None = None
    """The reference answer: what SFT trains on. A tool call is written in `<tool_call>` tags."""
    answer: str | None = None
    """What a grader looks for, where it is not the completion."""
    grader: GraderName | None = None
    """Overrides the suite's."""
    tools: tuple[dict[str, Any], ...] = ()
    weight: float = 1.0
    """Weight of the record's loss, more than 0."""
    line: int = 0
    """Line in its file, or row where it has no lines, from 1."""

    @property
    def expected(self) -> str:
        """What a grader compares with: the answer, else the completion, else the demonstration, else ''."""
        return self.answer or self.completion or self.demonstration or ""

    @property
    def question(self) -> str:
        """The prompt's text without system messages: what makes two records the same question."""
        return "\n".join(str(each["content"] or "") for each in self.messages if each["role"] != "system")


def data_digest(*groups: Sequence[Record]) -> str:
    """Returns `sha256:<hex>` of groups of records (train, held-out, …): of what they say, not how a file spells it."""
    total = hashlib.sha256()
    for group in groups:
        for record in group:
            content: list[object] = [record.id, record.messages, record.demonstration, record.completion, record.answer]
            content += [record.grader, record.tools, record.weight]
            total.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        total.update(b"\n")
    return "sha256:" + total.hexdigest()
