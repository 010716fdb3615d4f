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
    # Before and after: five held-out questions; without and with demonstration: five training records.
    assert made.questions == 2 * (5 + 5)
    assert made.parameters == made.trained == 8816
    assert set(made.step_seconds) == {"generate", "teacher", "student", "backward", "optimizer"}
    assert made.training_seconds == pytest.approx(4 * sum(made.step_seconds.values()))
    assert made.measuring_seconds > 0


def test_an_estimate_of_a_repositorys_head_counts_what_it_has_learned_before(config, run_train, tmp_path):
    published = run_train(config())
    assert published.reason == "Published"
    head = {"version": published.version, "digest": published.digest}
    (tmp_path / "repository" / "head.json").write_text(json.dumps(head))
    parts = config(skill={"name": "other"}, model={"uri": config().model.uri})
    assert estimate(parts).questions == 2 * (5 + 5 + 5)


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
    assert all(word in text for word in ("parameters", "memory at its peak", "a step", "training", "all of it", "CPU"))
