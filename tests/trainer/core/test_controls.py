"""Controls: a teacher that is shown somebody else's demonstration, or none, in training and in what is measured."""

from __future__ import annotations

import pytest

from skill_contract.spec import Demonstration
from skill_trainer.evaluate import Suite
from skill_trainer.steps.examples import make_examples
from skill_trainer.steps.measure import gain_questions
from tests.trainer.core.conftest import method, records


def prompts(tiny, demonstration: str) -> list[str]:
    settings = method(sdft={"prompt": {"demonstration": demonstration}})
    return [tiny.tokens.decode(each.teacher) for each in make_examples(records(), settings, tiny.tokens)]


def test_what_the_teacher_reads(tiny):
    own, shuffled, empty = (prompts(tiny, choice) for choice in Demonstration)
    for record, mine, others, none in zip(records(), own, shuffled, empty, strict=True):
        shown = [each.demonstration for each in records()]
        assert record.demonstration in mine
        assert record.demonstration not in others
        assert sum(text in others for text in shown) == 1
        assert not any(text in none for text in shown)


def test_students_and_targets_stay_as_they_are(tiny):
    kept = [
        [(each.student, each.target) for each in make_examples(records(), settings, tiny.tokens)]
        for settings in (method(), method(sdft={"prompt": {"demonstration": "Shuffled"}}))
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("choice", "shown"), [("Own", "I say tea."), ("Shuffled", "I say a bell."), ("Empty", "")])
def test_the_gain_is_measured_with_what_training_will_show(choice, shown):
    questions = gain_questions(Suite("say", tuple(records())), ())
    assert questions.shown(records()[0], Demonstration(choice)) == shown
