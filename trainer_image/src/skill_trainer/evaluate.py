"""Suites of questions and their item-wise scores. Asks whatever answers it is given; knows no model and no gate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from skill_contract.model import Document
from skill_contract.spec import GraderName
from skill_trainer.data import Record, parse_records
from skill_trainer.graders import grade

Answer = Callable[[Sequence[Record]], list[str]]
"""Returns one text per record, in their order."""


@dataclass(frozen=True)
class Suite:
    """Questions that are scored together."""

    name: str
    records: tuple[Record, ...]
    grader: GraderName = "exact"
    """For records that name none of their own."""

    def encode(self) -> bytes:
        """Returns the suite as JSON Lines, each record with its grader: what a version keeps in `.skill/suites/`."""
        lines = (
            json.dumps(_stored(record, self.grader), ensure_ascii=False, sort_keys=True) for record in self.records
        )
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def decode(cls, name: str, content: bytes) -> Suite:
        """Returns the suite in the bytes of `encode`; raises DataError as `read_records` does."""
        return cls(name, tuple(parse_records(content, f"suite {name}", "evaluation")))


def _stored(record: Record, grader: GraderName) -> dict[str, Any]:
    # A turn that only calls tools has no content: blank text would be refused when the suite is read again.
    messages = [{key: value for key, value in message.items() if value != ""} for message in record.messages]
    stored = {
        "id": record.id, "messages": messages, "answer": record.expected, "grader": record.grader or grader,
    }  # fmt: skip
    return {**stored, "tools": record.tools} if record.tools else stored


class SuiteScores(Document):
    """What one model answered to one suite, item by item, in the suite's order."""

    right: tuple[bool, ...]
    texts: tuple[str, ...]

    @property
    def score(self) -> float:
        """Share of right answers, 0 to 1."""
        return sum(self.right) / len(self.right)

    def at(self, places: Sequence[int]) -> SuiteScores:
        """Returns the scores of the questions at `places` only."""
        right, texts = zip(*((self.right[place], self.texts[place]) for place in places), strict=True)
        return SuiteScores(right=right, texts=texts)


def score(suites: Sequence[Suite], answer: Answer) -> dict[str, SuiteScores]:
    """Returns the scores of every suite by its name. All questions go to `answer` in one call, for it to batch.

    Raises:
        ValueError: where two suites have one name, a suite is empty, or `answer` returns another number of texts.
    """
    if len({suite.name for suite in suites}) < len(suites) or not all(suite.records for suite in suites):
        raise ValueError(f"suites need different names and at least one record: {[suite.name for suite in suites]}")
    records = [record for suite in suites for record in suite.records]
    answers = answer(records)
    if len(answers) != len(records):
        raise ValueError(f"{len(records)} questions, but {len(answers)} answers")
    texts = iter(answers)
    return {suite.name: _graded(suite, [next(texts) for _ in suite.records]) for suite in suites}


def _graded(suite: Suite, texts: Sequence[str]) -> SuiteScores:
    pairs = zip(suite.records, texts, strict=True)
    right = tuple(grade(record.grader or suite.grader, text, record.expected) for record, text in pairs)
    return SuiteScores(right=right, texts=tuple(texts))
