"""From records to token ids, all of them measured against the model's context before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from skill_contract.spec import Method
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite
from skill_trainer.model import ChatTokenizer
from skill_trainer.prompts import Example, require_fit, student_messages, tokenize


def make_examples(records: Sequence[Record], method: Method, tokens: ChatTokenizer) -> list[Example]:
    """Returns all training records as token ids; raises PromptTooLong with the numbers where one does not fit."""
    template = method.sdft.prompt.template
    examples = [
        tokenize(record, template, tokens.encode, tokens.encode_answer(record.completion or "")) for record in records
    ]
    if method.type == "SFT":
        lengths = [
            (f"record {each.id!r} with its completion", len(each.student) + len(each.target)) for each in examples
        ]
        require_fit(lengths, context=tokens.context, max_new_tokens=0)
    else:
        lengths = [(f"record {each.id!r}, the teacher's prompt,", len(each.teacher)) for each in examples]
        require_fit(lengths, context=tokens.context, max_new_tokens=method.rollout.max_new_tokens)
    return examples


def require_questions_fit(suites: Iterable[Suite], method: Method, tokens: ChatTokenizer) -> None:
    """Raises PromptTooLong where a question of a suite leaves no room for its answer."""
    lengths = list(_question_lengths(suites, tokens))
    require_fit(lengths, context=tokens.context, max_new_tokens=method.rollout.max_new_tokens)


def _question_lengths(suites: Iterable[Suite], tokens: ChatTokenizer) -> Iterator[tuple[str, int]]:
    for suite in suites:
        for record in suite.records:
            yield (
                f"suite {suite.name}, record {record.id!r},",
                len(tokens.encode(student_messages(record), record.tools)),
            )
