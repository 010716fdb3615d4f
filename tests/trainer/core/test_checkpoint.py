"""A run that is interrupted between any two steps and resumed gives the same bytes as one that was not."""

from __future__ import annotations

import pytest

from skill_trainer.checkpoint import load_state, save_state
from skill_trainer.curriculum import Curriculum
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.objective import make_objective
from tests.trainer.core.conftest import CPU, examples, method

METHODS = {
    "ema": method(sdft={"teacher": {"weights": "EMA", "emaRate": 0.1}}),
    "frozen": method(sdft={"teacher": {"weights": "Frozen"}, "divergence": "ReverseKL"}),
    "sft": method(type="SFT"),
    "lora-ema": method(sdft={"teacher": {"weights": "EMA", "emaRate": 0.1}}, adaptation={"type": "LoRA"}),
    "lora-frozen": method(sdft={"teacher": {"weights": "Frozen"}}, adaptation={"type": "LoRA"}),
}
FILES = ("student.safetensors", "teacher.safetensors", "optimizer.safetensors")


class Attempt:
    """One process's life: a model from the parent's folder, restored from a checkpoint where there is one."""

    def __init__(self, parent, settings, folder, resume=None, device=CPU):
        self.model = LanguageModel.load(parent, device, adapted=settings.adaptation.adapter is not None)
        if settings.adaptation.adapter:
            self.model.adapt(settings.adaptation.adapter, settings.seed)
        self.settings, self.folder, self.resume = settings, folder, resume
        self.objective, self.optimizer = make_objective(settings, self.model), make_optimizer(self.model)
        self.history = []
        if resume is not None:
            self.history = load_state(self.saved(resume), self.model, self.objective.teacher, self.optimizer)

    def saved(self, step):
        return self.folder / str(step)

    def run(self):
        def save(step):
            save_state(self.saved(step), self.model, self.objective.teacher, self.optimizer, self.history)

        train(
            self.model, self.objective, self.optimizer, Curriculum(examples(self.model, self.settings)), self.settings,
            done=self.resume or 0, save_every=1, on_step=self.history.append, save=save, stop=lambda: False,
        )  # fmt: skip
        return {name: (self.saved(4) / name).read_bytes() for name in FILES if (self.saved(4) / name).exists()}


@pytest.mark.parametrize("name", METHODS)
def test_resuming_at_any_step_gives_the_same_bytes(tiny_llama_dir, tmp_path, name):
    settings = METHODS[name]
    whole = Attempt(tiny_llama_dir, settings, tmp_path / "whole").run()
    assert len(whole) == (3 if name.endswith("ema") else 2), "only an averaged teacher has a state"
    for step in (1, 2, 3):
        folder = tmp_path / f"from-{step}"
        folder.mkdir()
        (folder / str(step)).symlink_to(tmp_path / "whole" / str(step))
        attempt = Attempt(tiny_llama_dir, settings, folder, resume=step)
        resumed = attempt.run()
        assert resumed == whole, f"resumed after step {step}"
        assert [report.step for report in attempt.history] == [1, 2, 3, 4]


def test_the_whole_run_itself_is_reproducible_and_changes_the_weights(tiny_llama_dir, tmp_path):
    first, second = (Attempt(tiny_llama_dir, METHODS["ema"], tmp_path / name).run() for name in ("a", "b"))
    assert first == second
    one = (tmp_path / "a" / "1" / "student.safetensors").read_bytes()
    assert one != first["student.safetensors"]
    assert first["teacher.safetensors"] != first["student.safetensors"]


def test_nothing_stored_is_pickled(tiny_llama_dir, tmp_path):
    Attempt(tiny_llama_dir, METHODS["ema"], tmp_path / "run").run()
    names = {path.suffix for path in (tmp_path / "run" / "4").iterdir()}
    assert names == {".safetensors", ".json"}


def test_a_checkpoint_of_another_model_is_refused(tiny, tiny_llama_dir, tmp_path):
    attempt = Attempt(tiny_llama_dir, METHODS["sft"], tmp_path / "run")
    attempt.run()
    del tiny.network.model.layers[1]
    with pytest.raises(AssertionError, match="belongs to another model"):
        load_state(attempt.saved(4), tiny, None, None)
