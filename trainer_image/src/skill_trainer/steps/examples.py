"""From records to token ids, all of them measured against the model's context before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from skill_contract.spec import Method, Prompt
from skill_contract.step import TrainConfig
from skill_trainer.curriculum import Curriculum
from skill_trainer.data import Record
from skill_trainer.evaluate import Suite
from skill_trainer.model import ChatTokenizer
from skill_trainer.prompts import (
    Example,
    require_fit,
    shown_demonstrations,
    student_messages,
    teacher_messages,
    tokenize,
)
from skill_trainer.steps.chats import naming, require_arguments_known, require_shown
from skill_trainer.steps.inputs import Inputs
from skill_trainer.steps.measure import GainQuestions, gain_is_measured, gain_questions


def make_curriculum(inputs: Inputs, config: TrainConfig, tokens: ChatTokenizer) -> Curriculum:
    """Returns all that is taught, as token ids.

    Raises:
        PromptTooLong: with the numbers where something does not fit.
        ConfigInvalid: for arguments that the chat template does not know.
    """
    require_arguments_known(tokens)
    new, rehearsed = (make_examples(records, config.method, tokens) for records in (inputs.train, inputs.rehearsed))
    return Curriculum(new, rehearsed, inputs.share)


def make_examples(records: Sequence[Record], method: Method, tokens: ChatTokenizer) -> list[Example]:
    """Returns all training records as token ids; raises PromptTooLong with the numbers where one does not fit."""
    prompt = method.sdft.prompt
    shown = shown_demonstrations(records, prompt.demonstration, method.seed)
    pairs = zip(records, shown, strict=True)
    examples = [_example(record, demonstration, prompt, tokens) for record, demonstration in pairs]
    if method.type == "SFT":
        lengths = [
            (f"record {each.id!r} with its completion", len(each.student) + len(each.target)) for each in examples
        ]
        require_fit(lengths, context=tokens.context, max_new_tokens=0)
    else:
        lengths = [(f"record {each.id!r}, the teacher's prompt,", len(each.teacher)) for each in examples]
        require_fit(lengths, context=tokens.context, max_new_tokens=method.rollout.max_new_tokens)
    return examples


def _example(record: Record, demonstration: str | None, prompt: Prompt, tokens: ChatTokenizer) -> Example:
    target = tokens.encode_answer(record.completion or "")
    name = f"record {record.id!r}"
    with naming(name, record):
        require_shown(name, record, tokens.render)
        return tokenize(record, prompt.template, tokens.encode, target, demonstration, text=prompt.text)


def require_questions_fit(suites: Iterable[Suite], config: TrainConfig, inputs: Inputs, tokens: ChatTokenizer) -> None:
    """Raises PromptTooLong where a question, alone or after a demonstration, leaves no room for its answer."""
    lengths = [*_question_lengths(suites, tokens)]
    if gain_is_measured(config):
        lengths += _gain_lengths(gain_questions(inputs.held_out, inputs.train), config.method, tokens)
    require_fit(lengths, context=tokens.context, max_new_tokens=config.method.rollout.max_new_tokens)


def _gain_lengths(questions: GainQuestions, method: Method, tokens: ChatTokenizer) -> Iterator[tuple[str, int]]:
    prompt = method.sdft.prompt
    for record in questions.records:
        for shown in filter(None, (record, questions.other(record))):
            messages = teacher_messages(record, prompt.template, shown.demonstration, text=prompt.text)
            name = f"in-context gain, record {record.id!r}"
            with naming(name, record):
                yield f"{name} with the demonstration of {shown.id!r}", len(tokens.encode(messages, record.tools))


def _question_lengths(suites: Iterable[Suite], tokens: ChatTokenizer) -> Iterator[tuple[str, int]]:
    for suite in suites:
        for record in suite.records:
            name = f"suite {suite.name}, record {record.id!r}"
            with naming(name, record):
                require_shown(name, record, tokens.render)
                length = len(tokens.encode(student_messages(record), record.tools))
            yield f"{name},", length
