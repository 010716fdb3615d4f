"""Our step on a setting. Samples like in a real run, and then takes the peer's answers, so that both do equal work.

python -m benchmarks.trainer.ours --model DIR --setting JSON --out FILE [--replay FILE]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.trainer.process import arguments
from benchmarks.trainer.workload import Run, Setting, Step, records
from skill_contract.spec import Method
from skill_trainer.curriculum import Curriculum
from skill_trainer.device import memory_bytes, prepare
from skill_trainer.loop import StepReport, make_optimizer, train
from skill_trainer.model import LanguageModel, silence
from skill_trainer.objective import Item, Sdft
from skill_trainer.prompts import Example
from skill_trainer.rollout import Choose, generate, sampler
from skill_trainer.schedule import generator
from skill_trainer.steps.examples import make_examples


class Replayed(Sdft):
    """SDFT that samples every token and then goes on with the one that was recorded; keeps its batches."""

    def __init__(self, method: Method, student: LanguageModel, order: list[Example], recorded: Sequence[Step]) -> None:
        super().__init__(method, student)
        self.order, self.recorded, self.batches = order, recorded, []
        self.method = method

    def items(self, batch: Sequence[Example], rows: Sequence[int], student: LanguageModel, step: int) -> list[Item]:
        """Takes the examples in their order, not shuffled: as the peer does."""
        batch = self.order[step * len(batch) : (step + 1) * len(batch)]
        items = self._replay(batch, student, step) if self.recorded else super().items(batch, rows, student, step)
        self.batches.append(items)
        return items

    def _replay(self, batch: Sequence[Example], student: LanguageModel, step: int) -> list[Item]:
        most = self.method.rollout.max_new_tokens
        numbers = generator(self.method.seed, "rollout", step)
        uniform_BN = torch.rand((len(batch), most), generator=numbers, dtype=torch.float64)
        draw = sampler(uniform_BN.to(student.device), self.temperature)
        answers = self.recorded[step].answers

        def forced(logits_AV: Tensor, rows_A: Tensor, number: int) -> Tensor:
            draw(logits_AV, rows_A, number)
            return torch.tensor([answers[row][number] for row in rows_A.tolist()], device=rows_A.device)

        choose: Choose = forced
        made = generate(student, [each.student for each in batch], most, choose)
        return [Item(example, answer.tokens, answer.finished) for example, answer in zip(batch, made, strict=True)]


def run(folder: Path, setting: Setting, device: torch.device, recorded: Sequence[Step]) -> Run:
    """Returns what our loop took for the setting."""
    silence()
    method = setting.method()
    model = LanguageModel.load(folder, device)
    examples = make_examples(records(setting.batch * (setting.steps + 1)), method, model.tokens)
    before = memory_bytes(device)
    objective = Replayed(method, model, examples, recorded)
    steps: list[Step] = []

    def on_step(report: StepReport) -> None:
        answers = [list(item.answer) for item in objective.batches[-1]]
        steps.append(Step(sum(report.seconds.values()), report.seconds, report.loss, answers))

    train(
        model, objective, make_optimizer(model), Curriculum(examples), method, done=0, save_every=1000, on_step=on_step,
        save=lambda _: None, stop=lambda: False,
    )  # fmt: skip
    return Run(steps, memory_bytes(device), before)


if __name__ == "__main__":
    options = arguments(__doc__)
    prepare()  # with the deterministic kernels that real runs use
    torch.set_num_threads(options.threads)
    recorded = Run.load(options.replay).steps if options.replay else []
    run(options.model, Setting(**options.setting), options.device, recorded).dump(options.out)
