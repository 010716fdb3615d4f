"""The check step: the parent it finds, and what it refuses, each with the value and the way out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from skill_contract.manifest import Manifest
from skill_contract.outcome import Result
from skill_contract.spec import Data, Gates, Method, Training
from skill_store.repository import Repository
from skill_trainer.data import DataError
from skill_trainer.errors import ConfigInvalid, ParentMismatch, PromptTooLong
from skill_trainer.memory import COMMON_GPU, Shape, expected_memory
from skill_trainer.model import ChatTokenizer, outline
from skill_trainer.steps.check import check, late_checkpoint
from skill_trainer.steps.examples import make_curriculum
from skill_trainer.steps.inputs import is_same_update, read_inputs
from tests.trainer.core.conftest import method


def test_check_imports_the_base_and_names_the_parent(config):
    outcome = check(config())
    head = Repository(config().model.uri).head()
    assert (outcome.outcome, outcome.reason) == (Result.SUCCEEDED, "Checked")
    assert (outcome.version, outcome.digest) == (head.version, head.digest)
    assert head.version.startswith("000000-")
    assert outcome.details["totalSteps"] == 4
    assert outcome.details["numParameters"] == 8816
    assert outcome.details["memoryBytes"] > 8816 * 20
    # Weights, two moments, teacher, and the best state: even a run of four steps is probed.
    assert outcome.details["checkpointBytes"] == 20 * outcome.details["numParameters"]
    assert len(outcome.encode()) <= 4096


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({}, r"a checkpoint has 140 GB, which .* training\.gracePeriodSeconds \(120\) at 1167 MB/s only: raise that"),
        ({"nodes": 2}, "at 583 MB/s only"),
        ({"gracePeriodSeconds": 900}, "^$"),
        ({"gracePeriodSeconds": 350, "nodes": 2}, "^$"),
    ],
)
def test_a_checkpoint_that_a_stopped_pod_could_hardly_save_is_noted(training, words):
    assert re.search(words, " ".join(late_checkpoint(20 * 7_000_000_000, Training.parse(training))))


@pytest.mark.parametrize(("nodes", "gpus", "processes"), [(1, 1, 1), (2, 4, 8), (1, 0, 1), (2, 0, 2)])
def test_memory_is_that_of_one_of_the_processes_that_are_asked_for(config, nodes, gpus, processes):
    settings = config(training={"nodes": nodes, "gpusPerNode": gpus})
    read = read_inputs(settings)
    tiny = Path(settings.model.base)
    examples = make_curriculum(read, settings, ChatTokenizer.load(tiny)).examples
    expected = expected_memory(
        Shape.of(outline(tiny)), examples, settings.method, None, gpu_bytes=COMMON_GPU if gpus else 0,
        processes=processes,
    )  # fmt: skip
    assert check(settings).details["memoryBytes"] == expected.peak


def test_check_twice_says_the_same(config):
    assert check(config()) == check(config())


def test_empty_repository_without_a_base_is_refused(config):
    with pytest.raises(ParentMismatch, match=r"has no head: set model\.base"):
        check(config(model={"uri": config().model.uri}))


def test_another_head_than_the_pinned_one_is_refused(config):
    wanted = "sha256:" + "0" * 64
    with pytest.raises(ParentMismatch, match=r"model\.parent is sha256:0000"):
        check(config(model={**config().model.dump(), "parent": wanted}))


def test_the_pinned_head_is_accepted(config):
    digest = check(config()).digest
    assert check(config(model={**config().model.dump(), "parent": digest})).reason == "Checked"


def test_settings_that_contradict_each_other_are_said_at_once(config):
    with pytest.raises(ConfigInvalid, match="with type: Full, remove lora"):
        check(config(method={"adaptation": {"type": "Full", "lora": {}}}))


@pytest.mark.parametrize("training", [{"gpusPerNode": 8}, {"nodes": 2, "gpusPerNode": 8}])
def test_several_gpus_and_nodes_are_welcome(config, training):
    assert check(config(training=training)).reason == "Checked"


def test_a_demonstration_that_does_not_fit_is_refused_with_the_numbers(config):
    with pytest.raises(PromptTooLong, match=r"record 'line-\d', the teacher's prompt, has \d+ tokens.*context is 512"):
        check(config(method=method(rollout={"maxNewTokens": 450}).dump()))


def test_a_question_of_a_suite_that_does_not_fit_is_refused(config, tmp_path):
    parts = config()
    long = tmp_path / "long.jsonl"
    long.write_text('{"prompt": "' + "x" * 600 + '", "answer": "y"}\n')
    data = {**parts.data.dump(), "retention": [{"name": "long", "uri": str(long)}]}
    with pytest.raises(PromptTooLong, match="suite long, record 'line-1'"):
        check(config(data=data))


ACCEPT = {
    "inContextGain": {"mode": "Warn"},
    "retention": {"maxDrop": "1", "minNormalized": "0"},
    "onInconclusive": "Accept",
}
SHORT = {"rollout": {"maxNewTokens": 8}}
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_a_chat_that_the_models_template_refuses_is_named(config, tiny_llama_dir, tmp_path):
    base = shutil.copytree(tiny_llama_dir, tmp_path / "strict")
    template = base / "chat_template.jinja"
    template.write_text(STRICT + template.read_text())
    parts = config(model={"uri": config().model.uri, "base": str(base)})
    chat = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"messages": chat, "answer": "x"}))
    taught = tmp_path / "taught.jsonl"
    taught.write_text(json.dumps({"messages": [*chat, {"role": "assistant", "content": "x"}]}))
    for data, place in (
        ({**parts.data.dump(), "heldOut": {"uri": str(asked)}}, "suite say, record 'line-1'"),
        ({**parts.data.dump(), "train": str(taught)}, "record 'line-1'"),
    ):
        with pytest.raises(DataError, match=rf"{place}.*system, user.*System role not supported") as caught:
            check(parts.model_copy(update={"data": Data.parse(data)}))
        assert caught.value.reason == "DataInvalid"


def test_a_demonstration_of_a_question_that_does_not_fit_is_refused(config, tmp_path):
    """Beyond its context a model answers nonsense, and the gate would say that demonstrations do not help."""
    parts, asked = config(), tmp_path / "asked.jsonl"
    lines = [{"prompt": f"What is {what}?", "answer": "x", "demonstration": what * 450} for what in "ab"]
    asked.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    data = {**parts.data.dump(), "heldOut": {"uri": str(asked)}}
    with pytest.raises(
        PromptTooLong, match=r"in-context gain, record 'line-\d' with the demonstration of 'line-\d'.*3 more"
    ):
        check(config(data=data))
    assert check(config(data=data, gates={"inContextGain": {"mode": "Skip"}})).reason == "Checked"


def test_a_run_of_few_steps_is_warned_of_with_the_numbers(config):
    """The defaults on a small file: over before the learning rate is there, and nobody looks."""
    (few, blind) = (made := check(config(method=SHORT))).details["warnings"]
    assert few == (
        "1 step (5 records, 2 epochs, 32 of them in a step, 0 of them warm-up) mostly teach nothing: write "
        "method.epochs: 128 or method.steps: 20, or a smaller method.batchSize"
    )
    assert "DivergenceRising (from 25 steps on)" in blind
    assert "EntropyCollapse, LengthDrift" in blind
    assert f"Noted: {few}; {blind}" in made.message, "the condition Checked says so"
    (few, _) = check(config(method={**SHORT, "steps": 4})).details["warnings"]
    assert few == "4 steps (method.steps, 2 of them warm-up) mostly teach nothing: write method.steps: 20 or more"
    enough = check(config(method={**SHORT, "steps": 25}))
    assert enough.details["warnings"] == []
    assert "Noted" not in enough.message


def say(tmp_path, *completions: str) -> None:
    lines = [{"prompt": f"What is {place}?", "completion": each} for place, each in enumerate(completions)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_demonstrations_that_are_no_longer_than_what_is_skipped(config, tmp_path):
    """The tiny model has a token for each byte, and one for the end."""
    parts = config()

    def warned(settings, *completions):
        say(tmp_path, *completions)
        return check(parts.model_copy(update={"method": Method.parse({**SHORT, "steps": 30, **settings})})).details[
            "warnings"
        ]

    with pytest.raises(
        ConfigInvalid, match=r"skipTokens: 3: all of 3 demonstrations .*at most 3, with the end.*: 0, or"
    ):
        warned({}, "A", "B", "no")
    (warning,) = warned({}, "A", "B", "that")
    assert warning.startswith("2 of 3 demonstrations have no more than the 3 tokens that are skipped")
    assert warned({}, "A", "this", "that", "such", "so it is") == []
    assert warned({"sdft": {"skipTokens": 0}}, "A", "B") == warned({"type": "SFT"}, "A", "B") == []
    with pytest.raises(ConfigInvalid, match=r"maxNewTokens: 3: .*skipTokens: 3"):
        warned({"rollout": {"maxNewTokens": 3}}, "this", "that")


def test_questions_of_earlier_skills_are_looked_for_in_the_training_data(config, run_train, tmp_path):
    """The parent's version has them; the training data came later, and may well hold them."""
    first = config(skill={"name": "earlier"})
    published = run_train(first)
    repository = Repository(first.model.uri)
    repository.move_head(repository.resolve(published.version), expected=repository.head())
    parts = config(update={"namespace": "ns", "name": "say", "uid": "uid-2"}, gates=ACCEPT)
    (tmp_path / "asked.jsonl").write_text('{"prompt": "Which is it?", "answer": "tea"}\n')
    data = {**parts.data.dump(), "heldOut": {"uri": str(tmp_path / "asked.jsonl")}}
    inherited = {"prompt": "Please say rain now", "completion": "rain"}  # of what `earlier` is asked
    with (tmp_path / "train.jsonl").open("a") as train:
        train.write(json.dumps(inherited) + "\n")
    parts = parts.model_copy(update={"data": Data.parse(data)})
    said = "retention suite earlier: 1 question, line 4 (training line 6), is also in the training data"
    assert any(warning.startswith(said) for warning in check(parts).details["warnings"])
    run_train(parts)
    report = json.loads(repository.run("uid-2").get("report.json"))
    assert any(warning.startswith(said) for warning in report["warnings"])
    assert any(warning.startswith("4 steps") for warning in report["warnings"])


@pytest.mark.parametrize("name", ["", "a/b", "..", "../../head", "say@before"])
def test_a_skill_whose_name_cannot_be_a_files_is_refused_before_training(config, name):
    """The CRD sees to it; by hand, nobody did, and the version could not be written at the end."""
    with pytest.raises(ConfigInvalid, match=r"skill\.name"):
        check(config(skill={"name": name}))


def test_retention_suites_need_names_of_their_own(config):
    data = config().data.dump()
    with pytest.raises(ConfigInvalid, match="must differ from each other and from the skill's"):
        check(config(data={**data, "retention": [{"name": "say", "uri": data["train"]}]}))


def test_held_out_questions_in_the_training_data_are_refused(config):
    data = config().data.dump()
    with pytest.raises(DataError) as caught:
        check(config(data={**data, "heldOut": {"uri": data["train"], "grader": "contains"}}))
    assert caught.value.reason == "DuplicatesFound"


def test_the_same_update_again_is_already_applied(config, run_train):
    parts = config()
    assert check(parts).reason == "Checked"
    published = run_train(parts)
    repository = Repository(parts.model.uri)
    repository.move_head(repository.resolve(published.version), expected=repository.head())
    again = parts.model_copy(update={"update": parts.update.model_copy(update={"uid": "uid-2"})})
    outcome = check(again)
    assert (outcome.outcome, outcome.reason) == (Result.SUCCEEDED, "AlreadyApplied")
    assert (outcome.version, outcome.digest) == (published.version, published.digest)
    other = again.model_copy(update={"method": method(seed=5)})
    assert check(other).reason == "Checked"


def again(parts, **changes):
    """The same by an update that knows nothing of the first."""
    return parts.model_copy(update={"update": parts.update.model_copy(update={"uid": "uid-2"}), **changes})


def test_a_version_that_was_published_of_the_very_same_is_adopted(config, run_train):
    """Its update went with its cluster before it was promoted, say."""
    parts = config()
    published = run_train(parts)
    parent = check(config()).version
    outcome = check(again(parts))
    assert (outcome.outcome, outcome.reason, outcome.version) == (Result.SUCCEEDED, "Adopted", parent)
    assert (outcome.published.version, outcome.published.digest) == (published.version, published.digest)
    assert outcome.evaluation == published.evaluation
    assert "by ns/say (20" in outcome.message
    repository = Repository(parts.model.uri)
    assert repository.run("uid-2").get("report.html") == repository.run("uid-1").get("report.html")
    assert repository.head().version == parent
    assert len(outcome.encode()) <= 4096


def test_only_what_passed_the_same_gates_is_adopted(config, run_train):
    parts = config()
    run_train(parts)
    approved, stricter = Gates.parse({**parts.gates.dump(), "approval": "Manual"}), Gates.parse(ACCEPT)
    assert check(again(parts, gates=approved)).reason == "Adopted"
    assert check(again(parts, gates=stricter)).reason == "Checked"
    assert check(again(parts, method=method(seed=5))).reason == "Checked"


@pytest.mark.parametrize("file", ["model.safetensors", ".skill/report.json", ".skill/manifest.json"])
def test_what_is_damaged_is_made_anew(config, run_train, file):
    parts = config()
    path = Path(parts.model.uri, "versions", run_train(parts).version, file)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert check(again(parts)).reason == "Checked"


def test_what_was_made_from_another_parent_is_not_adopted(config, run_train):
    """The head has moved on since: what it learned would be lost."""
    parts = config()
    run_train(parts)
    other = run_train(config(update={**parts.update.dump(), "uid": "other"}, method=method(seed=5).dump()))
    repository = Repository(parts.model.uri)
    repository.move_head(repository.resolve(other.version), expected=repository.head())
    assert check(again(parts)).reason == "Checked"


def test_version_of_before_a_field_of_the_method_came_is_recognised(config):
    parts = config()
    inputs = read_inputs(parts)
    old = parts.method.dump()
    del old["sdft"]["skipTokens"], old["adaptation"]
    made = Manifest(files=(), sequence=1, skill=parts.skill.name, data_digest=inputs.data_digest, method=old)
    assert is_same_update(parts, inputs, made)
    assert not is_same_update(parts, inputs, made.model_copy(update={"method": {**old, "seed": 5}}))
    assert not is_same_update(parts, inputs, made.model_copy(update={"method": {**old, "fromTheFuture": 1}}))
    assert not is_same_update(parts, inputs, made.model_copy(update={"skill": "other"}))
    assert not is_same_update(parts, inputs, made.model_copy(update={"data_digest": "sha256:0"}))
