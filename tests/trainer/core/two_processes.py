"""What two processes compute, for test_parallel.py: a program that `skill_trainer.launch` runs twice at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from skill_trainer.checkpoint import load_state, save_state
from skill_trainer.curriculum import Curriculum
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.objective import make_objective
from skill_trainer.parallel import Crew, lay_out, whole
from tests.trainer.core.conftest import CPU, examples, method

SDFT = {"sdft": {"teacher": {"weights": "EMA", "emaRate": 0.1}}}
FROZEN = {"sdft": {"teacher": {"weights": "Frozen"}}}
SPLITS = {
    "even": (method(batchSize=4, steps=2, **SDFT), 10**6),
    "item by item": (method(batchSize=5, steps=1, **SDFT), 1),
    "three items": (method(batchSize=3, steps=1, **SDFT), 10**6),
    "a process without any": (method(batchSize=1, steps=1, **SDFT), 10**6),
    "sft": (method(type="SFT", batchSize=3, steps=1), 1),
    "lora": (method(batchSize=3, steps=2, adaptation={"type": "LoRA", "lora": {"rank": 2}}, **SDFT), 1),
    "lora, frozen": (method(batchSize=1, steps=1, adaptation={"type": "LoRA"}, **FROZEN), 1),
}
RESUMED = method(steps=4, optimizer={"learningRate": 1e-3, "warmupSteps": 1}, **SDFT)


class Attempt:
    """One attempt of a run, by however many processes; from a saved step where one is given."""

    def __init__(self, parent, settings, crew, saved=None):
        self.model, self.settings, self.crew = LanguageModel.load(parent, CPU), settings, crew
        self.examples = examples(self.model, settings)
        if settings.adaptation.adapter:
            self.model.adapt(settings.adaptation.adapter, settings.seed)
        self.objective = make_objective(settings, self.model)
        self.layout = lay_out(crew, self.model, self.objective.teacher.model if self.objective.teacher else None)
        self.optimizer = make_optimizer(self.model)
        self.history, self.gradients = [], []
        if saved:
            self.history = load_state(saved, self.model, self.objective.teacher, self.optimizer)
        self.optimizer.register_step_pre_hook(self.remember)

    def remember(self, *_):
        weights = self.model.trained_parameters()
        self.gradients.append({name: whole(weight.grad).clone() for name, weight in weights.items()})

    def run(self, folder, steps=None, part_tokens=None):
        """Trains, and saves after each step; `steps`: stops there."""

        def save(step):
            state = (self.model, self.objective.teacher, self.optimizer, self.history)
            save_state(folder / str(step), *state, rank=self.crew.rank)

        try:
            train(
                self.model, self.objective, self.optimizer, Curriculum(self.examples), self.settings,
                done=len(self.history), save_every=1, on_step=self.history.append, save=save, stop=lambda: False,
                enough=lambda: len(self.history) == steps, part_tokens=part_tokens, layout=self.layout,
            )  # fmt: skip
        finally:
            self.layout.finish()
        return self

    def result(self):
        weights = {name: weight.detach() for name, weight in self.model.named_parameters().items()}
        return {
            "loss": [report.loss for report in self.history],
            "norm": [report.gradient_norm for report in self.history],
            "top": [report.top_share for report in self.history],
            "gap": [report.sampler_gap for report in self.history],
            "lengths": [report.mean_length for report in self.history],
            "gradients": self.gradients,
            "weights": weights,
            "records": self.model.records,
        }


def _errors(crew):
    """Returns what each process sees when one of them fails, in whatever the crew does."""

    def fail(rank):
        def work(*_):
            if crew._rank == rank:
                raise ValueError(f"rank {rank} cannot")
            return []

        return work

    calls = {
        "first": lambda: crew.first(fail(0)),
        "each": lambda: crew.each(fail(1)),
        "spread": lambda: crew.spread(3, fail(1)),
    }
    seen = {}
    for name, call in calls.items():
        try:
            call()
        except ValueError as error:
            seen[name] = str(error)
    return seen


def main(parent: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    crew = Crew.join(CPU)
    errors = _errors(crew)
    found = {
        "errors": crew.each(lambda: errors),
        "spread": crew.spread(5, lambda rows: [(row, crew.size) for row in rows]),
        "any": [crew.any(crew.rank == 1), crew.any(False)],
        "totals": crew.totals(crew.rank, 2.0),
        "splits": {
            name: Attempt(parent, settings, crew).run(folder / name, part_tokens=part_tokens).result()
            for name, (settings, part_tokens) in SPLITS.items()
        },
        "two": Attempt(parent, RESUMED, crew).run(folder / "two").result(),
        "again": Attempt(parent, RESUMED, crew, folder / "two" / "2").run(folder / "again").result(),
        "one-two": Attempt(parent, RESUMED, crew, folder / "one" / "2").run(folder / "one-two").result(),
    }
    if crew.rank == 0:
        torch.save(found, folder / "found.pt")
    crew.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
