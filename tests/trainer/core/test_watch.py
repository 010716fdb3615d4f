"""Runs that go wrong, for real, on the tiny model: what the monitors see, which state is published, exactly resumed.

The suites are canaries: what they expect is what the untrained model happens to say. So it begins with all of them
right, and any training at all makes it worse, which is all that a model of noise can show.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skill_contract.evaluation import Action, Signature
from skill_contract.manifest import Manifest
from skill_contract.spec import Gates
from skill_store.runs import Run
from skill_trainer.curriculum import Curriculum
from skill_trainer.errors import Preempted
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.monitors import Watched, look
from skill_trainer.objective import make_objective
from skill_trainer.rollout import greedy
from skill_trainer.step_report import Probe, Series
from skill_trainer.steps.stopping import Stop
from tests.trainer.core.conftest import CPU, Listener, examples, method

SCHEDULE = {"warmupSteps": 2, "schedule": "Constant"}
STRICT = Gates.parse({"inContextGain": {"mode": "Skip"}})


@pytest.fixture
def canaries(tiny_llama_dir: Path, tmp_path: Path):
    """Returns data whose held-out and retention questions the untrained model answers right, all of them."""

    def write(name: str, prompts: list[str]) -> str:
        model = LanguageModel.load(tiny_llama_dir, CPU)
        asked = [model.tokens.encode([{"role": "user", "content": prompt}]) for prompt in prompts]
        answers = [model.tokens.decode(each.tokens) for each in greedy(model, asked, max_new_tokens=4)]
        path = tmp_path / f"{name}.jsonl"
        lines = [{"prompt": p, "answer": a} for p, a in zip(prompts, answers, strict=True)]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return str(path)

    def make(config, *, skill: bool = True, **parts):
        kept = write("kept", [f"What is {place}?" for place in range(12)])
        known = {"uri": write("skill", [f"Please count to {place}" for place in range(12)]), "grader": "exact"}
        data = {
            "train": config().data.train,
            "heldOut": known if skill else config().data.held_out.dump(),
            "retention": [{"name": "kept", "uri": kept, "grader": "exact"}],
        }
        gates = {"inContextGain": {"mode": "Skip"}, "newSkill": {"minGain": "0"}, "onInconclusive": "Accept"}
        return config(data=data, **{**parts, "gates": {**gates, **parts.get("gates", {})}})

    return make


@pytest.fixture
def checkpoints_stay(monkeypatch):
    """A finished run removes its checkpoints; these tests want to look into them."""
    monkeypatch.setattr(Run, "remove_checkpoints", lambda _: None)


def short(**settings):
    """Steps that are quick, on answers of four tokens."""
    return method(**{"rollout": {"maxNewTokens": 4}, "sdft": {"skipTokens": 0}, **settings}).dump()


def series(tmp_path: Path, uid: str, step: int):
    return Series.validate_json((tmp_path / f"repository/runs/{uid}/step-{step:06d}/state.json").read_bytes())


def seen(outcome) -> dict[str, tuple[int, Action]]:
    return {alarm.signature: (alarm.step, alarm.action) for alarm in outcome.evaluation.alarms}


class StopsAt(Listener):
    """SIGTERM right after the news of a step: before its probe, where it has one."""

    def __init__(self, step: int, stop: Stop) -> None:
        super().__init__()
        self.step, self.stop = step, stop

    def update(self, **news):
        super().update(**news)
        if news.get("step") == self.step and "loss" in news:
            self.stop.request()


@pytest.mark.usefixtures("checkpoints_stay")
def test_the_best_state_is_published_and_a_run_killed_at_any_step_ends_with_the_same(
    canaries, config, run_train, tmp_path
):
    """Nothing is learned and more and more is lost, so the first probed state is the best."""

    def run(uid: str):
        return canaries(
            config, skill=False, update={"namespace": "ns", "name": "say", "uid": uid},
            method=short(steps=7, optimizer={"learningRate": 3e-4, **SCHEDULE}),
            training={"gpusPerNode": 0, "checkpoint": {"everySteps": 1, "keep": 9}},
            gates={"monitors": {"everySteps": 2, "mode": "Warn"}, "retention": {"maxDrop": "1", "minNormalized": "0"}},
        )  # fmt: skip

    whole = run_train(run("whole"))
    reports = series(tmp_path, "whole", 7)
    assert [report.step for report in reports if report.probe] == [2, 4, 6, 7]
    kept = {report.step: report.probe.scores()["kept"] for report in reports if report.probe}
    assert 1 > kept[2] > max(kept[step] for step in (4, 6, 7))
    assert (whole.reason, whole.evaluation.step) == ("Published", 2)
    for step in range(1, 8):
        stop = Stop()
        with pytest.raises(Preempted):
            run_train(run("killed"), StopsAt(step, stop), stop)
        left = series(tmp_path, "killed", step)[-1]
        assert left.step == step
        assert left.probe is None, "SIGTERM came before its probe"
    resumed = run_train(run("killed"))
    assert resumed.evaluation == whole.evaluation
    first, second = ([(each.probe, each.alarms) for each in series(tmp_path, uid, 6)] for uid in ("whole", "killed"))
    assert first[:5] == second[:5]
    for name in ("student", "optimizer", "teacher"):
        one, other = (tmp_path / f"repository/runs/{uid}/step-000007/{name}.safetensors" for uid in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes(), "probes change nothing"
    versions = [tmp_path / f"repository/versions/{outcome.version}" for outcome in (whole, resumed)]
    published = [load_file(folder / "model.safetensors") for folder in versions]
    best = load_file(tmp_path / "repository/runs/whole/step-000002/student.safetensors")
    for name, weight in published[0].items():
        assert weight.equal(published[1][name])
        assert weight.equal(best[name].to(weight.dtype))
    manifest = Manifest.parse_json((versions[0] / ".skill/manifest.json").read_bytes())
    assert manifest.evaluation.step == 2
    report = json.loads((versions[0] / ".skill/report.json").read_text())
    assert report["chosenStep"] == 2
    assert [point["step"] for point in report["series"] if point["scores"]] == [2, 4, 6, 7]
    curves = [
        [(point.get("drift"), point.get("teacherDrift")) for point in json.loads(page.read_text())["series"]]
        for page in (folder / ".skill/report.json" for folder in versions)
    ]
    assert curves[0] == curves[1]
    assert all((None in each) is (step not in {2, 4, 6, 7}) for step, each in enumerate(curves[0], 1))


@pytest.mark.usefixtures("checkpoints_stay")
def test_without_probes_the_last_state_is_published(canaries, config, run_train, tmp_path):
    settings = canaries(
        config, method=short(steps=4), gates={"monitors": {"everySteps": 0}, "retention": {"maxDrop": "1"}},
        training={"gpusPerNode": 0, "checkpoint": {"everySteps": 2}},
    )  # fmt: skip
    outcome = run_train(settings)
    assert outcome.evaluation.step == 4
    assert not [report for report in series(tmp_path, "uid-1", 4) if report.probe]
    assert not list(tmp_path.rglob("best.safetensors"))


def test_an_average_that_follows_too_fast_agrees_with_the_student_on_nothing(canaries, config, run_train):
    """EMA at rate 0.5: the loss looks perfect, while every answer that was right is lost."""
    listener = Listener()
    settings = canaries(
        config,
        method=short(
            steps=60, batchSize=5, optimizer={"learningRate": 0.01, **SCHEDULE},
            sdft={"teacher": {"emaRate": 0.5}, "skipTokens": 0}, rollout={"maxNewTokens": 4},
        ),
        gates={"monitors": {"everySteps": 15, "ignore": ["Forgetting"]}},
        training={"gpusPerNode": 0, "checkpoint": {"everySteps": 100}},
    )  # fmt: skip
    outcome = run_train(settings, listener)
    step, action = seen(outcome)[Signature.FEEDBACK_COLLAPSE]
    assert action is Action.STOP
    assert listener.all("step")[-1] == step < 60, "training ended there"
    assert outcome.reason == "SkillNotLearned"
    assert seen(outcome)[Signature.RETENTION_DROP][1] is Action.MARK
    assert seen(outcome)[Signature.TEACHER_DRIFT][1] is Action.MARK, "the average has gone with the student"
    assert listener.all("alarms")[-1] == outcome.evaluation.alarms
    assert {"probe_new_skill", "probe_retention"} <= listener.all("scores")[0].keys()


def test_too_small_a_learning_rate_is_named(canaries, config, run_train, tmp_path):
    method = short(steps=6, optimizer={"learningRate": 1e-12})

    def run(uid: str, every: int):
        update = {"namespace": "ns", "name": "say", "uid": uid}
        gates = {"monitors": {"everySteps": every}}
        return run_train(canaries(config, update=update, method=method, gates=gates))

    probed = run("probed", 2)
    assert seen(probed) == {Signature.NOTHING_LEARNED: (4, Action.MARK)}
    assert "learningRate, now 1e-12" in probed.evaluation.alarms[0].message
    assert seen(run("unprobed", 0)) == {Signature.NOTHING_LEARNED: (6, Action.MARK)}
    report = json.loads((tmp_path / "repository/runs/probed/report.json").read_text())
    assert report["weights"]["moved"] < 0.01
    assert any("of the weights are other numbers than the parent's" in warning for warning in report["warnings"])


def test_a_phrase_of_the_demonstrations_that_is_learned_with_them_is_named(config, run_train, tmp_path):
    """By heart, from demonstrations that all begin with it: the plain questions are answered so, too."""
    said = "Based on the example, I say"
    lines = [{"prompt": f"Say {what}", "completion": f"{said} {what}."} for what in ("tea", "rain", "bells")]
    settings = config(
        method=method(
            type="SFT", steps=150, batchSize=3, optimizer={"learningRate": 0.02, **SCHEDULE},
            rollout={"maxNewTokens": 24},
        ).dump(),
        training={"gpusPerNode": 0},
        gates={"monitors": {"everySteps": 0}},
    )  # fmt: skip
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    outcome = run_train(settings)
    assert seen(outcome)[Signature.LEAKED_PHRASES] == (150, Action.MARK)


def test_a_learning_rate_far_too_high_ends_training_early(canaries, config, run_train):
    """The student leaves its frozen teacher for good; the probe of the last state comes with the early end."""
    listener = Listener()
    settings = canaries(
        config, method=short(
            steps=60, batchSize=8, optimizer={"learningRate": 0.2, "warmupSteps": 60, "maxGradNorm": 100},
            sdft={"teacher": {"weights": "Frozen"}, "skipTokens": 0},
        ),
        gates={"monitors": {"everySteps": 20, "ignore": ["Forgetting", "FeedbackCollapse"]}},
        training={"gpusPerNode": 0, "checkpoint": {"everySteps": 100}},
    )  # fmt: skip
    outcome = run_train(settings, listener)
    step, action = seen(outcome)[Signature.DIVERGENCE_RISING]
    assert action is Action.STOP
    assert listener.all("step")[-1] == step < 60
    assert Signature.TEACHER_DRIFT not in seen(outcome)
    assert listener.all("drift")[-1] > 0.3, "the student has gone, its teacher has not"
    assert not listener.all("teacher_drift")


def test_what_stays_forgotten_ends_training(canaries, config, run_train):
    """One probe marks it, the next one stops the run."""
    listener = Listener()
    settings = canaries(
        config, method=short(steps=12, optimizer={"learningRate": 0.01, **SCHEDULE}),
        gates={"monitors": {"everySteps": 2}}, training={"gpusPerNode": 0},
    )  # fmt: skip
    outcome = run_train(settings, listener)
    assert seen(outcome)[Signature.RETENTION_DROP] == (2, Action.MARK)
    assert seen(outcome)[Signature.FORGETTING] == (4, Action.STOP)
    assert listener.all("step")[-1] == 4
    assert "kept: " in {alarm.signature: alarm.message for alarm in outcome.evaluation.alarms}[Signature.FORGETTING]


def test_answers_of_four_tokens_carry_no_loss_where_four_are_skipped(canaries, config, run_train):
    """Ends at once, and the gate says what the alarm says."""
    listener = Listener()
    settings = canaries(config, skill=False, method=short(steps=30, sdft={"skipTokens": 4}))
    outcome = run_train(settings.model_copy(update={"gates": STRICT}), listener)
    assert seen(outcome)[Signature.NO_LOSS] == (4, Action.STOP)
    assert listener.all("step")[-1] == 4, "sixteen answers"
    assert "NoLoss says why: none of the sampled answers of 4 steps has more than the 4 tokens" in outcome.message
    assert "more steps" not in outcome.message


def test_answers_that_are_always_cut_are_named(canaries, config, run_train):
    outcome = run_train(canaries(config, method=short(steps=15, optimizer={"learningRate": 1e-4, **SCHEDULE})))
    assert seen(outcome)[Signature.ANSWERS_CUT] == (15, Action.MARK)


def spoilt(tiny, spoil, **settings) -> dict[str, Action]:
    """What is seen of a student that follows a frozen teacher whose weights were spoilt."""
    settings = method(**{
        "steps": 25, "batchSize": 5, "rollout": {"maxNewTokens": 16},
        "sdft": {"teacher": {"weights": "Frozen"}, "skipTokens": 0}, **settings,
    })  # fmt: skip
    objective = make_objective(settings, tiny)
    with torch.no_grad():
        spoil(objective.teacher.model.network.get_input_embeddings().weight)
    return watched_run(tiny, objective, examples(tiny, settings), settings)


def watched_run(tiny, objective, shown, settings, reports=None) -> dict[str, Action]:
    """What is seen while a model is trained on `shown`; the reports are added to those given."""
    reports, parent = [] if reports is None else reports, Probe({"say": (False,)}, leaked=0.0, same=1.0)

    def on_step(report):
        reports.append(report)
        reports[-1] = replace(report, alarms=look(Watched(settings, Gates(), "say", parent, reports)))

    train(
        tiny, objective, make_optimizer(tiny), Curriculum(shown), settings, done=0, save_every=99,
        on_step=on_step, save=lambda step: None, stop=lambda: False,
    )  # fmt: skip
    return {alarm.signature: alarm.action for report in reports for alarm in report.alarms}


def test_a_teacher_that_says_its_last_word_again_makes_sure_answers_that_run_in_circles(tiny):
    """Its embedding, which is its head, too, is four times as long: it is sure, and of the token that it has read."""
    found = spoilt(tiny, lambda weight: weight.mul_(4), optimizer={"learningRate": 0.02, **SCHEDULE})
    assert found[Signature.REPETITION] is Action.STOP
    assert found[Signature.ENTROPY_COLLAPSE] is Action.MARK


def test_a_teacher_that_ends_too_soon_makes_short_answers(tiny):
    end = tiny.tokens.end_of_turn[0]
    found = spoilt(
        tiny, lambda weight: weight[end].mul_(8), steps=20, rollout={"maxNewTokens": 32},
        optimizer={"learningRate": 0.02, **SCHEDULE},
    )  # fmt: skip
    assert found[Signature.LENGTH_DRIFT] is Action.MARK


@pytest.mark.parametrize(("telling", "is_seen"), [(1, True), (5, False)])
def test_one_token_that_carries_the_loss_of_a_whole_batch_is_named(tiny, telling, is_seen):
    """One word a prompt is learned; where four of five demonstrations change nothing, it is one of the whole batch."""
    settings = method(
        steps=15, batchSize=5, sdft={"skipTokens": 0}, rollout={"maxNewTokens": 1}, optimizer={"learningRate": 1e-5}
    )
    shown = [
        replace(example, teacher=example.teacher if place < telling else example.student)
        for place, example in enumerate(examples(tiny, settings))
    ]
    found = watched_run(tiny, make_objective(settings, tiny), shown, settings)
    assert found.get(Signature.LOSS_CONCENTRATED) == (Action.MARK if is_seen else None)


def test_a_demonstration_that_changes_nothing_is_named(tiny):
    """With an empty demonstration, one that leaves the prompt as it is, the divergence is 0."""
    settings, reports = method(steps=1), []
    same = [replace(example, teacher=example.student) for example in examples(tiny, settings)]
    train(
        tiny, make_objective(settings, tiny), make_optimizer(tiny), Curriculum(same), settings, done=0,
        save_every=9, on_step=reports.append, save=lambda step: None, stop=lambda: False,
    )  # fmt: skip
    parent = Probe({"say": (False,)}, leaked=0.0, same=1.0)
    (alarm,) = look(Watched(settings, Gates(), "say", parent, reports))
    assert (alarm.signature, alarm.action) == (Signature.TEACHER_IGNORED, Action.MARK)
    assert abs(reports[0].loss) < 1e-6
