"""SmolLM2 learns two facts by SDFT: what noise cannot show. The long comparisons are the end-to-end tests'."""

from __future__ import annotations

from pathlib import Path

import pytest

from skill_contract.spec import Method
from skill_trainer.curriculum import Curriculum
from skill_trainer.data import read_records
from skill_trainer.evaluate import Suite, score
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.objective import make_objective
from skill_trainer.prompts import student_messages, teacher_messages, tokenize
from skill_trainer.rollout import greedy
from tests.trainer.core.conftest import CPU

SKILL = Path(__file__).parents[2] / "skills" / "smoke"
METHOD = Method.parse(
    {
        "batchSize": 4, "steps": 8, "rollout": {"maxNewTokens": 12},
        "optimizer": {"learningRate": 1.5e-4, "warmupSteps": 2, "schedule": "Constant"},
        "sdft": {"teacher": {"emaRate": 0.02}},
    }
)  # fmt: skip
TEMPLATE = METHOD.sdft.prompt.template


def share_right(model, suite, messages):
    def answer(records):
        prompts = [model.tokens.encode(messages(record)) for record in records]
        answers = greedy(model, prompts, max_new_tokens=METHOD.rollout.max_new_tokens)
        return [model.tokens.decode(each.tokens) for each in answers]

    return score([suite], answer)[suite.name]


@pytest.mark.trainer
def test_the_student_learns_what_only_the_teacher_was_shown(smollm2_dir):
    model = LanguageModel.load(smollm2_dir, CPU)
    suite = Suite("fact", tuple(read_records(str(SKILL / "heldout.jsonl"), "evaluation", "contains")), "contains")
    before = share_right(model, suite, student_messages)
    teacher = share_right(model, suite, lambda record: teacher_messages(record, TEMPLATE))
    assert before.score == 0
    assert teacher.score >= 0.75, teacher.texts

    examples = [
        tokenize(record, TEMPLATE, model.tokens.encode, model.tokens.encode_answer(record.completion))
        for record in read_records(str(SKILL / "train.jsonl"))
    ]
    losses = []
    train(
        model, make_objective(METHOD, model), make_optimizer(model), Curriculum(examples), METHOD, done=0,
        save_every=100, on_step=lambda report: losses.append(report.loss), save=lambda step: None, stop=lambda: False,
    )  # fmt: skip
    after = share_right(model, suite, student_messages)
    assert sum(losses[-4:]) < sum(losses[:4])
    assert after.score >= 0.5, after.texts
