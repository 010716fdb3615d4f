"""The state of a run between two steps, as files: safetensors and JSON, nothing pickled. Knows folders, no storage.

What training changes of student and teacher (an adapter's weights, or all), the optimiser's moments, and the reports of
all steps done: that is all there is. Everything else is the parent's.
Learning rate, order of the data and random numbers are functions of the step (see `schedule`), so they cannot be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from skill_trainer.model import LanguageModel
from skill_trainer.step_report import Series, StepReport
from skill_trainer.teacher import Teacher

STUDENT, TEACHER, OPTIMIZER, STATE = "student.safetensors", "teacher.safetensors", "optimizer.safetensors", "state.json"


def save_state(
    folder: Path, student: LanguageModel, teacher: Teacher | None, optimizer: torch.optim.Optimizer,
    history: Sequence[StepReport],
) -> None:  # fmt: skip
    """Writes the state after the last step of `history` into an empty folder."""
    folder.mkdir(parents=True)
    save_file(_detached(student.trained_parameters()), folder / STUDENT)
    if teacher and (state := teacher.state()):
        save_file(_detached(state), folder / TEACHER)
    moments = {
        f"{key}/{name}": value
        for name, parameter in student.trained_parameters().items()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(_detached(moments), folder / OPTIMIZER)
    (folder / STATE).write_bytes(Series.dump_json(list(history)))


def load_state(
    folder: Path, student: LanguageModel, teacher: Teacher | None, optimizer: torch.optim.Optimizer | None
) -> list[StepReport]:
    """Brings student, teacher and optimiser to the saved state, in place; returns the reports of all steps done."""
    _restore(student.trained_parameters(), folder / STUDENT)
    if teacher and (state := teacher.state()):
        _restore(state, folder / TEACHER)
    if optimizer:
        parameters = student.trained_parameters()
        for key_and_name, value in load_file(folder / OPTIMIZER).items():
            key, _, name = key_and_name.partition("/")
            optimizer.state[parameters[name]][key] = value.to(parameters[name].device, copy=True)
    return load_series(folder)


def load_series(folder: Path) -> list[StepReport]:
    """Returns the reports of all steps done."""
    return Series.validate_json((folder / STATE).read_bytes())


@torch.no_grad()
def _restore(parameters: dict[str, Tensor], path: Path) -> None:
    saved = load_file(path)
    assert saved.keys() == parameters.keys(), f"{path} belongs to another model"
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
