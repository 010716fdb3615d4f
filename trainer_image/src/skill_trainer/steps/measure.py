"""What a model answers to the suites, before and after training, and what the teacher adds. Measured once in a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skill_contract.evaluation import Comparison
from skill_contract.model import Document
from skill_contract.spec import Demonstration, GraderName, Prompt
from skill_contract.step import TrainConfig
from skill_trainer.data import Record
from skill_trainer.evaluate import Answer, Suite, SuiteScores, score
from skill_trainer.graders.normalization import normalize
from skill_trainer.likelihood import nats_per_token
from skill_trainer.model import LanguageModel
from skill_trainer.parallel import ALONE, Crew
from skill_trainer.prompts import Message, student_messages, teacher_messages
from skill_trainer.report import ShownAgain
from skill_trainer.rollout import Answer as Greedy
from skill_trainer.rollout import greedy
from skill_trainer.statistics import difference_interval
from skill_trainer.steps.workplace import Workplace

View = Callable[[Record], list[Message]]
"""What is asked of a model about a record."""
GAIN_ITEMS = 64
"""Most questions of the in-context gain: a gain of 20 points shows in nine of ten runs."""


class Measurement(Document):
    """The scores of one model on all suites."""

    seconds: float
    scores: dict[str, SuiteScores]

    @property
    def right(self) -> dict[str, tuple[bool, ...]]:
        """Returns what was right, item by item, by suite."""
        return {name: scores.right for name, scores in self.scores.items()}


class GainMeasurement(Document):
    """The same weights without and with a demonstration in context."""

    seconds: float
    student: SuiteScores
    teacher: SuiteScores
    """With the demonstration that the teacher is going to see: each question's own, but for controls."""
    control: SuiteScores | None = None
    """With another question's; None where all say the same."""
    nats: dict[str, float]
    """Mean negative log-probability of the right answers, nats per token, by `student`, `teacher` and `control`; empty
    where no right answer is written out."""


@dataclass(frozen=True, slots=True)
class GainQuestions:
    """The questions by which the in-context gain is measured."""

    records: tuple[Record, ...]
    grader: GraderName
    places: tuple[int, ...] | None
    """Their places in the held-out suite, whose scores then are the student's; None where they are training records."""

    def other(self, record: Record) -> Record | None:
        """Returns the question whose demonstration is shown for the control: the next one that says something else.

        If possible, with another right answer, too: else who copies would be right. None where all demonstrations have
        the same words.
        """
        place = self.records.index(record)
        following = (*self.records[place + 1 :], *self.records[:place])
        words, answer = normalize(record.demonstration or ""), normalize(record.expected)
        others = [each for each in following if normalize(each.demonstration or "") != words]
        return next((each for each in others if normalize(each.expected) != answer), next(iter(others), None))

    def with_right_answers(self) -> list[Record]:
        """Returns the questions with an answer that can be read: a pattern is none."""
        return [each for each in self.records if each.completion or (each.grader or self.grader) != "regex"]

    def shown(self, record: Record, choice: Demonstration) -> str | None:
        """Returns the demonstration under which the teacher is measured: what it will be shown in training."""
        if choice is Demonstration.EMPTY:
            return ""
        shown = (self.other(record) or record) if choice is Demonstration.SHUFFLED else record
        return shown.demonstration


@dataclass(frozen=True, slots=True)
class Gain:
    """What demonstrations in context are worth to the parent."""

    questions: GainQuestions
    measured: GainMeasurement
    gate: Comparison


def measure(
    work: Workplace, name: str, model: LanguageModel, suites: Sequence[Suite],
    *, ready: Callable[[], None] = lambda: None,
) -> Measurement:  # fmt: skip
    """Returns the scores of a model; `name` ("before", "after") is the file of the run that keeps them.

    `ready` is called before they are kept, and returns when the model itself cannot be lost any more.
    """

    def make() -> bytes:
        start = time.monotonic()
        scores = score(suites, run_answerer(work, model, student_messages))
        ready()
        return Measurement(seconds=time.monotonic() - start, scores=scores).dump_json().encode()

    return Measurement.parse_json(work.kept(f"{name}.json", make))


def gain_is_measured(config: TrainConfig) -> bool:
    """Returns whether there is a teacher, and somebody wants to know what it is worth."""
    return config.method.type == "SDFT" and config.gates.in_context_gain.mode != "Skip"


def gain_questions(held_out: Suite, train: Sequence[Record]) -> GainQuestions:
    """Returns the held-out questions that come with a demonstration; training records where none does."""
    places = [place for place, record in enumerate(held_out.records) if record.demonstration][:GAIN_ITEMS]
    if places:
        records = tuple(held_out.records[place] for place in places)
        return GainQuestions(records, held_out.grader, tuple(places))
    return GainQuestions(tuple(train[:GAIN_ITEMS]), held_out.grader, None)


def measure_gain(
    work: Workplace, model: LanguageModel, questions: GainQuestions, held_out: SuiteScores
) -> GainMeasurement:
    """Returns what demonstrations in context add; `held_out` are the scores that the student has already."""
    prompt = work.config.method.sdft.prompt

    def ask(messages: View) -> SuiteScores:
        return _asked(work, model, questions, messages)

    def make() -> bytes:
        start = time.monotonic()
        views = {"student": student_messages, "teacher": _teachers_view(prompt, questions)}
        others = {record.id: other for record in questions.records if (other := questions.other(record))}
        if others:
            views["control"] = lambda record: _shown(record, prompt, others[record.id].demonstration)
        student = ask(student_messages) if questions.places is None else held_out.at(questions.places)
        teacher, control = ask(views["teacher"]), ask(views["control"]) if others else None
        limit = work.config.method.rollout.max_new_tokens
        told = questions.with_right_answers()
        nats = {name: _answer_nats(model, told, view, limit) for name, view in views.items()} if told else {}
        seconds = time.monotonic() - start
        measured = GainMeasurement(seconds=seconds, student=student, teacher=teacher, control=control, nats=nats)
        return measured.dump_json().encode()

    return GainMeasurement.parse_json(work.kept("gain.json", make))


def measure_shown_again(work: Workplace, model: LanguageModel, gain: Gain) -> ShownAgain:
    """Returns what the new version makes of the demonstrations that its parent was shown, beside what that made."""

    def make() -> bytes:
        start, view = time.monotonic(), _teachers_view(work.config.method.sdft.prompt, gain.questions)
        before, after = gain.measured.teacher.right, _asked(work, model, gain.questions, view).right
        n = len(after)
        pairs = list(zip(before, after, strict=True))
        low, high = difference_interval(pairs.count((False, True)), pairs.count((True, False)), n)
        seconds = time.monotonic() - start
        again = ShownAgain(before=sum(before), after=sum(after), n=n, low=low, high=high, seconds=seconds)
        return again.dump_json().encode()

    return ShownAgain.parse_json(work.kept("shown-again.json", make))


def _asked(work: Workplace, model: LanguageModel, questions: GainQuestions, messages: View) -> SuiteScores:
    suite = Suite("in-context gain", questions.records, questions.grader)
    return score([suite], run_answerer(work, model, messages))[suite.name]


def _teachers_view(prompt: Prompt, questions: GainQuestions) -> View:
    return lambda record: _shown(record, prompt, questions.shown(record, prompt.demonstration))


def _shown(record: Record, prompt: Prompt, demonstration: str | None) -> list[Message]:
    return teacher_messages(record, prompt.template, demonstration, text=prompt.text)


def _answer_nats(model: LanguageModel, records: Sequence[Record], messages: View, limit: int) -> float:
    """Of the first `limit` tokens: as many as fit the context for certain."""
    prompts = [model.tokens.encode(messages(record), record.tools) for record in records]
    answers = [model.tokens.encode_answer(record.completion or record.expected)[:limit] for record in records]
    return nats_per_token(model, prompts, answers)


def run_answerer(work: Workplace, model: LanguageModel, messages: View) -> Answer:
    """Returns what answers records greedily in a run, with a heartbeat and a look for SIGTERM after each batch."""
    limit = work.config.method.rollout.max_new_tokens
    return answerer(model, messages, max_new_tokens=limit, between=work.between_answers, crew=work.crew)


def answerer(
    model: LanguageModel, messages: View, *, max_new_tokens: int,
    between: Callable[[], None], crew: Crew = ALONE,
) -> Answer:  # fmt: skip
    """Returns what answers records greedily, each process its share; `between` is called after each batch."""

    def answer(records: Sequence[Record]) -> list[str]:
        prompts = [model.tokens.encode(messages(record), record.tools) for record in records]

        def ask(rows: Sequence[int]) -> list[Greedy]:
            chosen = [prompts[row] for row in rows]
            return greedy(model, chosen, max_new_tokens=max_new_tokens, between=between)

        answers = crew.spread(len(prompts), ask)
        return [model.tokens.decode(each.tokens) for each in answers]

    return answer
