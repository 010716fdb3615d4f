"""The train step: gate, train, score, publish. What an earlier attempt has finished is taken from the run's folder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.manifest import VersionRef
from skill_contract.outcome import Outcome, Result
from skill_contract.progress import Stage
from skill_contract.step import Step
from skill_trainer.device import memory_bytes
from skill_trainer.errors import OutOfMemory
from skill_trainer.evaluate import Suite
from skill_trainer.gates import in_context_gain_gate, judge, overall
from skill_trainer.model import LanguageModel
from skill_trainer.monitors import way_to_learn
from skill_trainer.report import SideBySide, side_by_side
from skill_trainer.steps.aside import measure_aside
from skill_trainer.steps.data_facts import data_facts
from skill_trainer.steps.drift import parents_answers
from skill_trainer.steps.examples import make_curriculum, require_questions_fit
from skill_trainer.steps.fit import fit
from skill_trainer.steps.forewarnings import forewarnings
from skill_trainer.steps.ground import Ground, prepare
from skill_trainer.steps.measure import Gain, Measurement, gain_is_measured, gain_questions, measure, measure_gain
from skill_trainer.steps.publish import Candidate, publish, put_report
from skill_trainer.steps.room import find_room, ways_out
from skill_trainer.steps.uploads import Uploads
from skill_trainer.steps.watch import Fitted, alarms_at_end
from skill_trainer.steps.workplace import Workplace

RESULT = "result.json"


def train_step(work: Workplace) -> Outcome:
    """Returns `Published` with the version, or Rejected with the gate's reason. Says the same again when run again.

    A run that has its result keeps no checkpoints: 16 bytes a weight each, for nobody.

    Raises:
        TrainerError, DataError, StoreError: as `check` does; Diverged, Preempted.
        OutOfMemory: where a GPU is too small.
    """
    if stored := work.crew.first(lambda: work.run.get(RESULT)):
        work.crew.first(work.run.remove_checkpoints)
        return Outcome.parse_json(stored)
    try:
        outcome = _train(work)
    except torch.OutOfMemoryError as error:  # a GPU's; on a CPU the kernel ends the process
        peak = memory_bytes(work.device) / 1e9
        raise OutOfMemory(
            f"the GPU is full at {peak:.1f} GB: take a larger one, {ways_out(work.config.method)}"
        ) from error
    work.crew.first(lambda: work.run.put(RESULT, outcome.dump_json().encode()))  # all the rest is there
    work.crew.first(work.run.remove_checkpoints)
    return outcome


def _train(work: Workplace) -> Outcome:
    ground = work.crew.on_each_machine(lambda: prepare(work))
    method = work.config.method
    adapted = method.adaptation.adapter is not None
    model = LanguageModel.load(ground.parent, work.device, method.chat_template_arguments, adapted=adapted)
    curriculum = make_curriculum(ground.inputs, work.config, model.tokens)
    require_questions_fit(ground.suites, work.config, ground.inputs, model.tokens)
    data = data_facts(ground.inputs, ground.suites, curriculum, model.tokens)
    warnings = forewarnings(work.config, ground.inputs, curriculum, model.tokens)
    room = find_room(ground.parent, method, curriculum.examples, work.device, processes=work.crew.size)
    model.answer_room = room.answers

    work.tell(stage=Stage.GATING)
    before = measure(work, "before", model, ground.suites)
    gain = _in_context_gain(work, model, ground, before)
    if gain and (refused := _refused_before_training(work, gain.gate)):
        rows, seconds = _gain_rows(gain), {"before": before.seconds}
        return _reject(work, Candidate(ground, refused, data, rows, (), seconds, warnings))

    answers = parents_answers(work, model, ground)
    with Uploads(work.crew) as uploads:  # the last checkpoint is on its way while the answers are measured
        fitted = fit(
            work, model, curriculum, ground.suites, before.scores, answers=answers, part_tokens=room.part_tokens,
            uploads=uploads,
        )  # fmt: skip
        model.round_to_stored(ground.parent)
        work.tell(stage=Stage.EVALUATING)
        # Kept only when the weights are: an attempt that trains again may, on a GPU, come to others.
        after = measure(work, "after", model, ground.suites, ready=uploads.wait)
    aside = measure_aside(work, model, ground, gain, answers)
    evaluation = _evaluate(work, ground.suites, gain.gate if gain else None, before, after, fitted=fitted)
    rows = side_by_side(ground.suites, before.scores, after.scores)
    seconds = {"before": before.seconds, "after": after.seconds}
    if aside.shown_again:
        seconds["with demonstrations again"] = aside.shown_again.seconds
    warnings = (*warnings, *aside.warnings())
    candidate = Candidate(ground, evaluation, data, rows, fitted.history, seconds, warnings, aside)
    if evaluation.verdict is not Verdict.PASSED:
        return _reject(work, candidate)

    work.tell(stage=Stage.PUBLISHING)
    ref = work.crew.first(lambda: publish(work, candidate, model, before, after))
    return _outcome(Result.SUCCEEDED, "Published", f"published {ref.version}: {_summary(evaluation)}", evaluation, ref)


def _in_context_gain(work: Workplace, model: LanguageModel, ground: Ground, before: Measurement) -> Gain | None:
    """Returns whether demonstrations help this model at all, where that is measured."""
    config, skill = work.config, ground.inputs.held_out
    if not gain_is_measured(config):
        return None
    questions = gain_questions(skill, ground.inputs.train)
    measured = measure_gain(work, model, questions, before.scores[skill.name])
    gain = in_context_gain_gate(
        skill.name, measured.student.right, measured.teacher.right, config.gates.in_context_gain,
        copy_control=measured.control.right if measured.control else (), answer_nats=measured.nats,
    )  # fmt: skip
    work.tell(scores={"in_context_gain": gain.after})
    return Gain(questions, measured, gain)


def _gain_rows(gain: Gain) -> tuple[SideBySide, ...]:
    """Returns the answers to its questions, as examples."""
    suite = Suite("without and with demonstration", gain.questions.records, gain.questions.grader)
    return side_by_side([suite], {suite.name: gain.measured.student}, {suite.name: gain.measured.teacher})


def _refused_before_training(work: Workplace, gain: Comparison) -> Evaluation | None:
    evaluation = overall(work.config.gates, in_context_gain=gain)
    return None if evaluation.verdict is Verdict.PASSED else evaluation


def _evaluate(
    work: Workplace, suites: Sequence[Suite], gain: Comparison | None, before: Measurement, after: Measurement,
    *, fitted: Fitted,
) -> Evaluation:  # fmt: skip
    alarms = (*fitted.alarms, *alarms_at_end(work, fitted, suites, before.scores, after.scores))
    evaluation = judge(
        work.config.gates, suites[0].name, before.right, after.right, in_context_gain=gain, way_out=way_to_learn(alarms)
    )
    assert evaluation.new_skill is not None
    worst = {} if evaluation.worst_retention is None else {"retention": evaluation.worst_retention}
    work.tell(scores={"new_skill": evaluation.new_skill.after, **worst}, alarms=alarms)
    return evaluation.model_copy(update={"step": fitted.step, "alarms": alarms})


def _reject(work: Workplace, candidate: Candidate) -> Outcome:
    reason, comparison = rejection(candidate.evaluation)
    work.crew.first(lambda: put_report(work, candidate, outcome=reason))
    example = f"; for example {_example(candidate.rows)}" if not candidate.history else ""
    message = f"{comparison.suite}: {comparison.reason}{example}"
    return _outcome(Result.REJECTED, reason, message, candidate.evaluation, None)


def rejection(evaluation: Evaluation) -> tuple[str, Comparison]:
    """Returns why an evaluation that has not Passed was rejected, and the comparison that says so."""
    reasons = [("NoInContextGain", [evaluation.in_context_gain] if not evaluation.new_skill else [])]
    reasons += [("SkillNotLearned", [evaluation.new_skill]), ("SkillForgotten", [*evaluation.retention])]
    found = [(reason, each) for reason, comparisons in reasons for each in comparisons if each]
    for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
        for reason, comparison in found:
            if comparison.verdict is verdict:
                return (reason if verdict is Verdict.FAILED else "Inconclusive"), comparison
    raise AssertionError(f"nothing to reject in {evaluation}")


def _example(rows: Sequence[SideBySide]) -> str:
    row = rows[0]
    return f"{row.prompt!r:.120} was answered {row.after!r:.120} with the demonstration, expected {row.expected!r:.80}"


def _summary(evaluation: Evaluation) -> str:
    skill, worst = evaluation.new_skill, evaluation.worst_retention
    assert skill is not None
    learned = f"{skill.suite} {skill.before:.2f} → {skill.after:.2f} (n = {skill.n})"
    return learned if worst is None else f"{learned}, worst retention {worst:.2f}"


def _outcome(result: Result, reason: str, message: str, evaluation: Evaluation, ref: VersionRef | None) -> Outcome:
    return Outcome(
        step=Step.TRAIN, outcome=result, reason=reason, message=message, evaluation=evaluation,
        version=ref.version if ref else "", digest=ref.digest if ref else "",
    )  # fmt: skip
