"""What a run will take, said beforehand: from a base model or a repository's head, with times of the real loop."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from skill_trainer import estimate as module
from skill_trainer.errors import ParentMismatch
from skill_trainer.estimate import estimate
from skill_trainer.steps.check import check
from tests.trainer.core.conftest import method


def test_an_estimate_of_a_base_model_writes_nothing(config, tmp_path):
    parts = config()
    made = estimate(parts)
    assert not (tmp_path / "repository").exists()
    assert made.steps == 4
    # Before and after: five held-out questions; with a demonstration, another's and, in the end, again: five records.
    assert made.questions == 2 * 5 + 3 * 5
    assert made.parameters == made.trained == 8816
    assert set(made.step_seconds) == {"generate", "teacher", "student", "backward", "optimizer"}
    assert made.training_seconds == pytest.approx(4 * sum(made.step_seconds.values()))
    assert made.measuring_seconds > 0


def test_probes_and_golden_prompts_are_part_of_all_of_it(config):
    """Four steps, a probe every third and one at the end, of three held-out questions each; five can be golden."""
    parts = config(gates={**config().gates.dump(), "monitors": {"everySteps": 3, "questions": 3}})
    made = estimate(parts)
    assert (made.probes, made.probe_questions, made.golden_prompts) == (2, 3, 5)
    assert made.probing_seconds > 0
    assert made.golden_seconds > 0
    asked = made.measuring_seconds + made.probing_seconds + made.golden_seconds
    assert made.total_seconds == pytest.approx(made.training_seconds + asked)
    assert made.checkpoint == check(parts).details["checkpointBytes"] == 20 * made.parameters
    unprobed = estimate(config(gates={**config().gates.dump(), "monitors": {"mode": "Skip"}}))
    assert (unprobed.probes, unprobed.probing_seconds) == (0, 0)


def test_the_step_that_is_timed_is_cut_as_the_runs_are(config, monkeypatch):
    """By what the device has room for, and not by what a card of 80 GB has: else a large model's probe does not fit."""
    cuts = []
    real = module.train

    def train(*arguments, **settings):
        cuts.append(settings["part_tokens"])
        real(*arguments, **settings)

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module.Room, "of", lambda *_, **__: module.Room(77, 10**9))
    estimate(config())
    assert set(cuts) == {77}


def test_an_estimate_of_a_repositorys_head_counts_what_it_has_learned_before(config, run_train, tmp_path):
    published = run_train(config())
    assert published.reason == "Published"
    head = {"version": published.version, "digest": published.digest}
    (tmp_path / "repository" / "head.json").write_text(json.dumps(head))
    parts = config(skill={"name": "other"}, model={"uri": config().model.uri})
    assert estimate(parts).questions == 2 * (5 + 5) + 3 * 5


def test_check_and_estimate_say_the_same_peak(config):
    assert estimate(config()).peak == check(config()).details["memoryBytes"]


def test_an_adapter_is_estimated_as_one(config):
    made = estimate(config(method=method(adaptation={"type": "LoRA", "lora": {"rank": 2}}).dump()))
    assert made.trained < made.parameters / 2


def test_sft_has_no_teacher_to_wait_for(config):
    made = estimate(config(method=method(type="SFT").dump()))
    assert made.step_seconds["teacher"] < made.step_seconds["backward"]
    assert made.questions == 2 * 5


def test_a_model_too_large_for_a_probe_gets_no_times(config, monkeypatch):
    monkeypatch.setattr(module, "total_memory", lambda device: 1000)
    made = estimate(config())
    assert made.step_seconds == {}
    assert "a probe with 2 layers would take" in made.not_timed


def test_without_a_model_the_way_out_is_said(config):
    with pytest.raises(ParentMismatch, match=r"has no head, and model\.base '' is no Hugging Face directory"):
        estimate(config(model={"uri": config().model.uri}))


def test_the_table_has_what_a_person_asks(config):
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(estimate(config()).table())
    text = console.export_text()
    assert all(
        word in text
        for word in ("parameters", "memory at its peak", "a step", "training", "all of it", "CPU", "probes", "golden")
    )
