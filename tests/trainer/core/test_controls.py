"""Controls: a teacher that is shown somebody else's demonstration, or none, in training and in what is measured."""

from __future__ import annotations

import json

import pytest

from skill_contract.spec import Demonstration
from skill_trainer.data import Record
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


def asked(*pairs: tuple[str, str]):
    said = [
        Record(f"q{number}", ({"role": "user", "content": f"{number}?"},), demonstration=shown, answer=answer)
        for number, (shown, answer) in enumerate(pairs)
    ]
    return gain_questions(Suite("say", tuple(said)), ())


def test_the_control_shows_another_answer():
    """The next record may say the same; who copies it would be right, and the control would say: it shows the task."""
    questions = asked(("It is tea.", "tea"), ("it is  TEA", "tea"), ("Tea, I think.", "tea"), ("It is rain.", "rain"))
    others = [questions.other(record) for record in questions.records]
    assert [other.id for other in others] == ["q3", "q3", "q3", "q0"]
    alike = asked(("It is tea.", "tea"), ("Tea, I think.", "tea"))
    assert [alike.other(record).id for record in alike.records] == ["q1", "q0"], "other words, at least"


def test_where_all_say_the_same_there_is_no_control(config, run_train, tmp_path):
    same = asked(("Yes.", "yes"), ("yes", "yes"))
    assert [same.other(record) for record in same.records] == [None, None]
    parts, known = config(), tmp_path / "known.jsonl"
    lines = [{"prompt": f"Is {place} a number?", "completion": "Yes."} for place in range(4)]
    known.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    outcome = run_train(config(data={**parts.data.dump(), "heldOut": {"uri": str(known)}}))
    assert "no control with another question's demonstration is possible" in outcome.evaluation.in_context_gain.reason
    assert "nats per token" in outcome.evaluation.in_context_gain.reason


@pytest.mark.parametrize(("choice", "shown"), [("Own", "I say tea."), ("Shuffled", "I say a bell."), ("Empty", "")])
def test_the_gain_is_measured_with_what_training_will_show(choice, shown):
    questions = gain_questions(Suite("say", tuple(records())), ())
    assert questions.shown(records()[0], Demonstration(choice)) == shown
