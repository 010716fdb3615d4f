"""How much data a run has and how long its prompts are: for the report. Judges nothing; refuses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from skill_trainer.curriculum import Curriculum
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite
from skill_trainer.graders.normalization import normalize
from skill_trainer.model import ChatTokenizer
from skill_trainer.prompts import Example, student_messages
from skill_trainer.report import DataSet
from skill_trainer.steps.inputs import Inputs


def data_facts(
    inputs: Inputs, suites: Sequence[Suite], curriculum: Curriculum, tokens: ChatTokenizer
) -> tuple[DataSet, ...]:
    """Returns the facts of what is taught, then of every suite: the new skill's, the user's, the inherited ones."""
    taught = [_taught("training data", "training", inputs.train, curriculum.new)]
    if inputs.rehearsed:
        taught.append(_taught("rehearsed data", "rehearsal", inputs.rehearsed, curriculum.rehearsed))
    own = {suite.name for suite in inputs.retention}
    return (*taught, *(_suite(suite, inputs, own, tokens) for suite in suites))


def _taught(
    name: str, role: Literal["training", "rehearsal"], records: Sequence[Record], examples: Sequence[Example]
) -> DataSet:
    return DataSet(
        name=name,
        role=role,
        records=len(records),
        repeated=_repeated(records),
        prompt_tokens=sum(len(example.student) for example in examples),
        longest_prompt=max(len(example.student) for example in examples),
        longest_teacher_prompt=max(len(example.teacher) for example in examples),
    )


def _suite(suite: Suite, inputs: Inputs, own: set[str], tokens: ChatTokenizer) -> DataSet:
    lengths = [len(tokens.encode(student_messages(record), record.tools)) for record in suite.records]
    is_held_out = suite.name == inputs.held_out.name
    return DataSet(
        name=suite.name,
        role="held-out" if is_held_out else "retention" if suite.name in own else "inherited",
        records=len(suite.records),
        repeated=_repeated(suite.records),
        grader=suite.grader,
        prompt_tokens=sum(lengths),
        longest_prompt=max(lengths),
    )


def _repeated(records: Sequence[Record]) -> int:
    return len(records) - len({normalize(record.question) for record in records})
