"""The train step on noise: what it publishes, what it rejects, and that every restart ends in the same version."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from skill_contract.evaluation import Comparison, Evaluation, Verdict
from skill_contract.manifest import GoldenSet
from skill_contract.outcome import Result
from skill_contract.progress import Stage
from skill_store.folder import FolderStore
from skill_store.repository import Repository
from skill_store.runs import Run
from skill_trainer.errors import ConfigInvalid, OutOfMemory, Preempted
from skill_trainer.evaluate import Suite
from skill_trainer.model import LanguageModel
from skill_trainer.prompts import student_messages
from skill_trainer.report import REPORTS
from skill_trainer.rollout import greedy
from skill_trainer.steps.check import check
from skill_trainer.steps.stopping import Stop
from skill_trainer.steps.train import RESULT, rejection
from tests.trainer.core.conftest import CPU, Listener, method, stored_in_bf16, workplace


def published_folder(config, outcome, tmp_path):
    repository = Repository(config.model.uri)
    folder = tmp_path / "published"
    repository.download(repository.resolve(outcome.version), folder)
    return folder


def test_a_version_is_published_with_its_proof(config, run_train, tmp_path):
    settings, listener = config(), Listener()
    outcome = run_train(settings, listener)
    assert (outcome.outcome, outcome.reason) == (Result.SUCCEEDED, "Published")
    repository = Repository(settings.model.uri)
    manifest = repository.manifest(repository.resolve(outcome.version))
    head = repository.head()
    assert (manifest.sequence, manifest.parent, manifest.skills) == (1, head.ref, ("say",))
    assert manifest.method == settings.method.dump()
    assert head.version.startswith("000000-"), "only promotion moves the head"
    folder = published_folder(settings, outcome, tmp_path)
    assert {path.name for path in (folder / ".skill").iterdir()} == {
        "eval.json", "golden.json", "suites", "report.json", "report.html", "manifest.json",
    }  # fmt: skip
    assert Evaluation.parse_json((folder / ".skill/eval.json").read_text()) == outcome.evaluation
    assert listener.all("stage") == [Stage.GATING, Stage.TRAINING, Stage.EVALUATING, Stage.PUBLISHING]
    assert listener.all("step")[-1] == 4
    assert listener.all("last_checkpoint") == [1, 2, 3, 4]


ADAPTATIONS = {"Full": {"type": "Full"}, "LoRA": {"type": "LoRA", "lora": {"rank": 2, "publish": "Adapter"}}}


def publish_in_bf16(config, run_train, source, folder, adaptation, device):
    """The whole step on a device, from a repository in a folder and back to it, with a parent stored in bf16."""
    base = stored_in_bf16(folder / "base", source)
    settings = config(
        model={"uri": str(folder / "repository"), "base": str(base)}, method=method(adaptation=adaptation).dump()
    )
    listener = Listener()
    outcome = run_train(settings, listener, device=device)
    assert (outcome.outcome, outcome.reason) == (Result.SUCCEEDED, "Published")
    assert listener.all("last_checkpoint") == [1, 2, 3, 4]
    assert all(math.isfinite(loss) for loss in listener.all("loss"))
    published = published_folder(settings, outcome, folder)
    weights, before = (load_file(place / "model.safetensors") for place in (published, base))
    assert weights.keys() == before.keys()
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    report = json.loads((published / ".skill/report.json").read_text())
    assert report["environment"]["device"].startswith(device.type)
    assert (published / "adapter" / "adapter_model.safetensors").exists() == (adaptation["type"] == "LoRA")
    return published, outcome


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_a_parent_in_bf16_has_a_version_in_bf16(config, run_train, tiny_llama_dir, tmp_path, name):
    """Its twin on a GPU is in test_gpu.py."""
    publish_in_bf16(config, run_train, tiny_llama_dir, tmp_path, ADAPTATIONS[name], CPU)


def test_golden_prompts_are_what_the_published_weights_answer(config, run_train, tmp_path):
    settings = config()
    folder = published_folder(settings, run_train(settings), tmp_path)
    model = LanguageModel.load(folder, CPU)
    golden = GoldenSet.parse_json((folder / ".skill/golden.json").read_text())
    assert golden.prompts
    assert any(each.text != each.parent_text for each in golden.prompts)
    for each in golden.prompts:
        (answer,) = greedy(model, [model.tokens.encode(each.messages)], max_new_tokens=each.max_new_tokens)
        assert model.tokens.decode(answer.tokens) == each.text
        assert answer.logprobs == pytest.approx(each.token_logprobs)


def test_the_stored_suite_brings_back_the_questions_and_their_grader(config, run_train, tmp_path):
    settings = config()
    folder = published_folder(settings, run_train(settings), tmp_path)
    suite = Suite.decode("say", (folder / ".skill/suites/say.jsonl").read_bytes())
    assert len(suite.records) == 5
    assert {record.grader for record in suite.records} == {"contains"}
    assert student_messages(suite.records[0]) == [{"role": "user", "content": "Please say tea now"}]


def test_running_again_returns_the_stored_result_without_work(config, run_train):
    settings, listener = config(), Listener()
    first = run_train(settings)
    run = Repository(settings.model.uri).run(settings.update.uid)
    assert run.checkpoints() == [], "a run that has its result needs none any more"
    assert run_train(settings, listener) == first
    assert listener.news == []


class Crash(BaseException):
    """What no handler of ours sees, as SIGKILL."""


@pytest.fixture
def published_in_vain(config, run_train, tmp_path, monkeypatch):
    """An attempt has published its version and died before it could say so; returns the version's name."""
    put = Run.put

    def put_or_die(self, name, data):
        if name == RESULT:
            raise Crash
        put(self, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "put", put_or_die)
        with pytest.raises(Crash):
            run_train(config())
    (published,) = (tmp_path / "repository/versions").glob("000001-*")
    return published.name


@pytest.mark.parametrize("lost", [[], ["golden.json", "report.html"]])
def test_a_restart_at_the_end_publishes_no_second_version(config, run_train, tmp_path, published_in_vain, lost):
    for name in lost:
        (tmp_path / "repository/runs/uid-1" / name).unlink()
    assert run_train(config()).version == published_in_vain
    assert len(list((tmp_path / "repository/versions").iterdir())) == 2


def test_a_crash_after_any_write_ends_in_one_version(config, run_train, tmp_path, monkeypatch):
    """Each attempt dies at the next of the writes that a run stands on; the last one finishes."""
    whole = run_train(config(update={**config().update.dump(), "uid": "whole"}))
    names = ["origin.json", "before.json", "gain.json", "after.json", "golden.json", *REPORTS, "/.skill/manifest.json"]
    left = list(names)
    put = FolderStore.put

    def put_and_crash(self, key, data, **condition):
        etag = put(self, key, data, **condition)
        if left and key.endswith(left[0]) and "step-" not in key:
            left.pop(0)
            raise Crash
        return etag

    monkeypatch.setattr(FolderStore, "put", put_and_crash)
    for _ in names:
        with pytest.raises(Crash):
            run_train(config())
    outcome = run_train(config())
    versions = tmp_path / "repository/versions"
    assert {path.name[:6] for path in versions.iterdir()} == {"000000", "000001"}
    assert {path.name for path in versions.glob("000001-*")} == {whole.version, outcome.version}
    weights = [(versions / each.version / "model.safetensors").read_bytes() for each in (whole, outcome)]
    assert weights[0] == weights[1]


def test_scores_before_are_measured_once_in_a_run(config, run_train, tmp_path):
    """What a first attempt has stored is taken as it is, even where it is not what this attempt would measure."""
    settings = config()
    stop = Stop()
    stop.request()
    with pytest.raises(Preempted):
        run_train(settings, stop=stop)
    run_train(config(update={**settings.update.dump(), "uid": "other"}))
    before = json.loads((tmp_path / "repository/runs/other/before.json").read_text())
    before["scores"]["say"]["texts"][0] = "something else"
    (tmp_path / "repository/runs/uid-1/before.json").write_text(json.dumps(before))
    run_train(settings)
    report = json.loads((tmp_path / "repository/runs/uid-1/report.json").read_text())
    assert "something else" in {row["before"] for row in report["answers"]}


def test_preempted_and_resumed_gives_the_weights_of_an_uninterrupted_run(config, run_train, tmp_path):
    class StopsAtStep(Listener):
        def __init__(self, step, stop):
            super().__init__()
            self.step, self.stop = step, stop

        def update(self, **news):
            super().update(**news)
            if news.get("step") == self.step:
                self.stop.request()

    whole = run_train(config(update={**config().update.dump(), "uid": "whole"}))
    for step in (1, 3):
        stop = Stop()
        with pytest.raises(Preempted, match=f"step {step} of 4"):
            run_train(config(), StopsAtStep(step, stop), stop)
    listener = Listener()
    resumed = run_train(config(), listener)
    assert listener.all("step") == [3, 4]
    weights = [
        (tmp_path / f"repository/versions/{outcome.version}/model.safetensors").read_bytes()
        for outcome in (whole, resumed)
    ]
    assert weights[0] == weights[1]


def test_a_damaged_checkpoint_is_passed_over(config, run_train, tmp_path, published_in_vain):
    (tmp_path / "repository/runs/uid-1/step-000004/student.safetensors").write_bytes(b"x" * 100)
    listener = Listener()
    assert run_train(config(), listener).version == published_in_vain
    assert listener.all("step") == [3, 4]


def test_what_does_not_pass_is_rejected_and_only_reported(config, run_train, tmp_path):
    settings = config(gates={"inContextGain": {"mode": "Skip"}, "newSkill": {"minScore": "0.5"}})
    outcome = run_train(settings)
    assert (outcome.outcome, outcome.reason, outcome.version) == (Result.REJECTED, "SkillNotLearned", "")
    assert "below minScore 0.5" in outcome.message
    assert len(list((tmp_path / "repository/versions").iterdir())) == 1
    assert (tmp_path / "repository/runs/uid-1/report.html").stat().st_size > 1000
    assert run_train(settings) == outcome


def test_a_teacher_that_cannot_teach_is_refused_before_training(config, run_train, tmp_path):
    settings = config(gates={"inContextGain": {"mode": "Enforce", "minGain": "0.9"}})
    listener = Listener()
    outcome = run_train(settings, listener)
    assert outcome.outcome == Result.REJECTED
    assert outcome.reason == "NoInContextGain"
    assert "was answered" in outcome.message
    assert "expected" in outcome.message
    assert outcome.evaluation.in_context_gain.n == 5
    assert Stage.TRAINING not in listener.all("stage")


def test_sft_has_no_teacher_to_gate(config, run_train):
    outcome = run_train(config(method={**config().method.dump(), "type": "SFT"}))
    assert outcome.reason == "Published"
    assert outcome.evaluation.in_context_gain is None


def test_settings_cannot_change_under_a_run(config, run_train):
    run_train(config())
    path = Repository(config().model.uri).run("uid-1")
    assert path.get("result.json") is not None
    other = config(method={**config().method.dump(), "seed": 3})
    Repository(config().model.uri)._store.delete(["runs/uid-1/result.json"])
    with pytest.raises(ConfigInvalid, match="begun with other settings"):
        run_train(other)


def test_run_that_an_older_version_began_goes_on(config, run_train):
    """What the settings have got since then stands at its default."""
    settings, stop = config(), Stop()
    stop.request()
    with pytest.raises(Preempted):
        run_train(settings, stop=stop)
    run = Repository(settings.model.uri).run("uid-1")
    origin = json.loads(run.get("origin.json") or b"")
    name, data, method, gates = json.loads(origin["settings"])
    del method["adaptation"], gates["monitors"]
    run.put("origin.json", json.dumps(origin | {"settings": json.dumps([name, data, method, gates])}).encode())
    with pytest.raises(Preempted):
        run_train(settings, stop=stop)


def test_data_cannot_change_under_a_run(config, run_train, tmp_path):
    """Scores before and after would be of different questions, and the weights of different data."""
    settings, stop = config(), Stop()
    stop.request()
    with pytest.raises(Preempted):
        run_train(settings, stop=stop)
    test = tmp_path / "test.jsonl"
    test.write_text(test.read_text().replace("Please", "Now"))
    with pytest.raises(ConfigInvalid, match="the data of run uid-1 were changed since it was begun"):
        run_train(settings)


def test_of_two_first_attempts_the_faster_one_fixes_where_the_run_begins(config, run_train, tmp_path):
    """A pod on a node that was lost may still be at work when its successor starts."""
    work = workplace(config(), tmp_path / "scratch")

    def slower() -> bytes:
        work.run.put("origin.json", b"the faster one's")
        return b"the slower one's"

    assert work.kept("origin.json", slower) == b"the faster one's"
    assert work.run.get("origin.json") == b"the faster one's"


def test_a_checkpoint_with_a_lost_part_is_passed_over(config, run_train, tmp_path, published_in_vain):
    (tmp_path / "repository/runs/uid-1/step-000004/optimizer.safetensors").unlink()
    listener = Listener()
    assert run_train(config(), listener).version == published_in_vain
    assert listener.all("step") == [3, 4]


@pytest.mark.parametrize("stage", [Stage.GATING, Stage.TRAINING, Stage.EVALUATING])
def test_a_full_gpu_is_said_plainly_wherever_it_fills(config, run_train, stage):
    class FillsUp(Listener):
        def update(self, **news):
            if news.get("stage") is stage:
                raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match=r"the GPU is full at .* GB: take a larger one, train an adapter"):
        run_train(config(), FillsUp())


def test_a_gpu_that_is_too_small_is_said_before_anything_is_measured(config, run_train, monkeypatch):
    monkeypatch.setattr("skill_trainer.steps.room.gpu_bytes", lambda _: 100_000)
    listener = Listener()
    with pytest.raises(OutOfMemory, match="the run needs"):
        run_train(config(), listener)
    assert Stage.GATING not in listener.all("stage")


def test_the_next_skill_is_tested_on_the_suites_of_the_one_before(config, run_train, tmp_path):
    first = run_train(config())
    repository = Repository(config().model.uri)
    repository.move_head(repository.resolve(first.version), expected=repository.head())
    data = config().data.dump()
    for name, text in (("train", "Sing {}"), ("test", "Do sing {}")):
        lines = [{"prompt": text.format(what), "completion": f"La {what}"} for what in ("one", "two", "six")]
        (tmp_path / f"sing-{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    data = {"train": str(tmp_path / "sing-train.jsonl"), "heldOut": {"uri": str(tmp_path / "sing-test.jsonl")}}
    second = config(
        update={"namespace": "ns", "name": "sing", "uid": "uid-2"}, skill={"name": "sing"}, data=data,
    )  # fmt: skip
    assert "and 1 suite of earlier skills" in check(second).message
    outcome = run_train(second)
    assert [each.suite for each in outcome.evaluation.retention] == ["say"]
    ref = repository.resolve(outcome.version)
    assert sorted(repository.suites(ref)) == ["say", "sing"]
    assert repository.manifest(ref).skills == ("say", "sing")


def comparison(suite, verdict):
    return Comparison(
        suite=suite, before=0.5, after=0.5, gain=0, low=0, high=0, n=1, normalized=1, verdict=verdict, reason=suite
    )


@pytest.mark.parametrize(
    ("gain", "skill", "kept", "expected"),
    [
        ("Failed", None, [], ("NoInContextGain", "gain")),
        ("Inconclusive", None, [], ("Inconclusive", "gain")),
        ("Passed", "Failed", ["Failed"], ("SkillNotLearned", "skill")),
        ("Passed", "Inconclusive", ["Passed", "Failed"], ("SkillForgotten", "kept1")),
        ("Passed", "Passed", ["Inconclusive"], ("Inconclusive", "kept0")),
        ("Failed", "Passed", ["Failed"], ("SkillForgotten", "kept0")),
    ],
)
def test_the_reason_of_a_rejection_is_the_worst_gates(gain, skill, kept, expected):
    evaluation = Evaluation(
        in_context_gain=comparison("gain", gain),
        new_skill=comparison("skill", skill) if skill else None,
        retention=tuple(comparison(f"kept{number}", verdict) for number, verdict in enumerate(kept)),
        verdict=Verdict.FAILED,
    )
    reason, found = rejection(evaluation)
    assert (reason, found.suite) == expected
