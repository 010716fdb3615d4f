"""What is measured beside the gates, in real runs of the tiny model: drift from earlier versions, and what a
demonstration does when it is there again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from skill_contract.spec import PromptTemplate
from skill_store.repository import Repository
from skill_trainer.data import Record
from skill_trainer.model import LanguageModel
from skill_trainer.prompts import teacher_messages
from skill_trainer.report import RunReport
from skill_trainer.rollout import greedy
from skill_trainer.steps.drift import ANSWERS, Answers, Said
from tests.trainer.core.conftest import CPU, method

GATES = {
    "inContextGain": {"mode": "Skip"}, "newSkill": {"minGain": "0"}, "onInconclusive": "Accept",
    "retention": {"maxDrop": "1", "minNormalized": "0"}, "monitors": {"mode": "Warn"},
}  # fmt: skip
FAST = method(optimizer={"learningRate": 0.01, "warmupSteps": 1}).dump()


def said(model: LanguageModel, *pairs: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[Said, ...]:
    """Answers with what transformers' own logits make of them."""
    found = []
    for prompt, answer in pairs:
        logits = model.network(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])
        found.append(Said(prompt=prompt, answer=answer, nats=-chosen.mean().item()))
    return tuple(found)


@pytest.fixture
def kept(tmp_path):
    """Returns a retention suite of so many questions."""

    def make(name: str, count: int) -> dict[str, object]:
        path = tmp_path / f"{name}.jsonl"
        lines = [{"prompt": f"What is {name} {place}?", "answer": "x"} for place in range(count)]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return {"name": name, "uri": str(path), "grader": "exact"}

    return make


def report_of(folder, uid: str) -> RunReport:
    return RunReport.parse_json((folder / f"repository/runs/{uid}/report.json").read_bytes())


def test_drift_is_by_how_much_less_probable_the_answers_are(tiny):
    pairs = [((1, 2, 3), (10, 11)), ((4, 5), (12,))]
    answers = Answers(version="000000-abcabcabcabc", said=said(tiny, *pairs))
    assert answers.drift(tiny) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.mul_(1.1)
    before, after = ([each.nats for each in some] for some in (answers.said, said(tiny, *pairs)))
    assert answers.drift(tiny) == pytest.approx((sum(after) - sum(before)) / 2, rel=1e-4)
    assert Answers(version=answers.version, said=()).drift(tiny) is None


def test_every_version_is_held_against_its_parent_and_against_the_release(config, run_train, kept, tmp_path):
    """Of the release only answers are handed on; neither its weights are needed nor the suite that it was asked."""
    repository = Repository(config().model.uri)

    def publish(uid: str, suite) -> Path:
        update = {"namespace": "ns", "name": "say", "uid": uid}
        data = {**config().data.dump(), "retention": [suite]}
        outcome = run_train(config(update=update, method=FAST, gates=GATES, data=data))
        assert outcome.reason == "Published", outcome.message
        repository.move_head(repository.resolve(outcome.version), expected=repository.head())
        return tmp_path / "repository/versions" / outcome.version

    folders = [publish("one", kept("kept", 40)), publish("two", kept("another", 3))]
    handed_on = [Answers.parse_json((folder / ".skill" / ANSWERS).read_bytes()) for folder in folders]
    assert handed_on[0] == handed_on[1]
    (of_release,), (of_parent, of_both) = (report_of(tmp_path, uid).drift for uid in ("one", "two"))
    assert of_release.version == of_both.version == next(reversed([*repository.lineage()]))[0].version
    assert of_parent.version == folders[0].name
    assert [each.questions for each in (of_release, of_parent, of_both)] == [4, 3, 4], "no more than a batch has"
    assert 0.05 < of_release.nats < of_both.nats, "what two updates have done is more than one has"
    for folder, told in zip(folders, (of_release, of_both), strict=True):
        assert handed_on[0].drift(LanguageModel.load(folder, CPU)) == pytest.approx(told.nats, rel=1e-4)


def test_without_anything_to_keep_there_is_no_drift(config, run_train, tmp_path):
    outcome = run_train(config(gates=GATES))
    assert report_of(tmp_path, "uid-1").drift == ()
    assert not (tmp_path / "repository/versions" / outcome.version / ".skill" / ANSWERS).exists()


@pytest.mark.parametrize(("rate", "is_worse"), [(0.01, True), (1e-12, False)])
def test_a_version_that_makes_less_of_demonstrations_than_its_parent_is_named(
    config, run_train, tiny, tmp_path, rate, is_worse
):
    """What the parent says to a demonstration is taken for right, so there is nothing to win."""
    base = config()
    lines = [{"prompt": f"Please count to {number}", "completion": f"I count to {number}."} for number in range(12)]
    for line in lines:
        record = Record("", ({"role": "user", "content": line["prompt"]},), demonstration=line["completion"])
        shown = tiny.tokens.encode(teacher_messages(record, PromptTemplate.DEFAULT))
        (answer,) = greedy(tiny, [shown], max_new_tokens=8)
        line["answer"] = tiny.tokens.decode(answer.tokens)
    (tmp_path / "count.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    data = {"train": base.data.train, "heldOut": {"uri": str(tmp_path / "count.jsonl"), "grader": "exact"}}
    optimizer = {"learningRate": rate, "warmupSteps": 1}
    gates = {**GATES, "inContextGain": {"mode": "Warn"}}
    outcome = run_train(config(method=method(steps=8, optimizer=optimizer).dump(), gates=gates, data=data))
    report = report_of(tmp_path, "uid-1")
    again, gain = report.shown_again, outcome.evaluation.in_context_gain
    assert (again.n, again.before, again.before / again.n) == (12, 12, gain.after)
    assert (again.high < 0) is is_worse
    assert (again.after == 12) is not is_worse
    said = [warning for warning in report.warnings if "with the demonstration in its context" in warning]
    assert bool(said) is is_worse
    assert "with demonstrations again" in " ".join(report.time_split)
