"""The state of a run between two steps, as files: safetensors and JSON, nothing pickled. Knows folders, no storage.

What training changes of student and teacher (an adapter's weights, or all), the optimiser's moments, and the reports of
all steps done; the best state's weights, where that is an earlier one. Everything else is the parent's.
Learning rate, order of the data and random numbers are functions of the step (see `schedule`), so they cannot be lost.

Where several processes train, each writes its rows of every tensor into a file of its own, `student-00001.safetensors`.
The files' rows one after the other are the tensor, and each process of a later attempt, of however many, reads those
that it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from skill_trainer.model import LanguageModel
from skill_trainer.parallel import is_shared_out, like, own_rows
from skill_trainer.step_report import Series, StepReport
from skill_trainer.teacher import Teacher

STUDENT, TEACHER, OPTIMIZER, STATE = "student.safetensors", "teacher.safetensors", "optimizer.safetensors", "state.json"
BEST = "best.safetensors"
"""The student's weights in the best probed state so far, where that is an earlier one."""


def save_state(
    folder: Path, student: LanguageModel, teacher: Teacher | None, optimizer: torch.optim.Optimizer,
    history: Sequence[StepReport], *, best: Path | None = None, rank: int = 0,
) -> None:  # fmt: skip
    """Writes the state after the last step of `history` into an empty folder, the same for all of a machine.

    What all of them have, the first one writes. `best` is the folder of `save_weights` with the best state's weights,
    where that is an earlier one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / STUDENT, student.trained_parameters(), rank)
    if teacher and (state := teacher.state()):
        _write(folder / TEACHER, state, rank)
    moments = {
        f"{key}/{name}": value
        for name, parameter in student.trained_parameters().items()
        for key, value in optimizer.state[parameter].items()
    }
    _write(folder / OPTIMIZER, moments, rank)
    if rank == 0:
        for path in best.iterdir() if best else ():
            os.link(path, folder / path.name)  # never written again, only replaced
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
        with _opened(folder / OPTIMIZER) as saved:
            for key_and_name in saved.names:
                key, _, name = key_and_name.partition("/")
                parameter = parameters[name]
                optimizer.state[parameter][key] = saved.like(parameter, key_and_name)
    return load_series(folder)


def load_series(folder: Path) -> list[StepReport]:
    """Returns the reports of all steps done."""
    return Series.validate_json((folder / STATE).read_bytes())


def save_weights(folder: Path, weights: Mapping[str, Tensor], *, rank: int = 0) -> None:
    """Writes what is trained of a model, in fp32, into a folder, the same for all processes of a machine."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / BEST, weights, rank)


def load_weights(folder: Path, model: LanguageModel) -> None:
    """Brings a model to the weights of `save_weights`, in place."""
    _restore(model.trained_parameters(), folder / BEST)


def take_best(saved: Path, folder: Path) -> None:
    """Moves the best state's weights out of a checkpoint into an empty folder, for `load_weights`."""
    folder.mkdir(parents=True)
    for path in saved.glob(f"{Path(BEST).stem}*"):
        path.replace(folder / path.name)


def _write(path: Path, tensors: Mapping[str, Tensor], rank: int) -> None:
    if any(is_shared_out(tensor) for tensor in tensors.values()):
        path = path.with_stem(f"{path.stem}-{rank:05}")
    elif rank > 0:
        return
    save_file({name: own_rows(tensor)[0].detach().contiguous() for name, tensor in tensors.items()}, path)


@torch.no_grad()
def _restore(parameters: Mapping[str, Tensor], path: Path) -> None:
    with _opened(path) as saved:
        assert saved.names == parameters.keys(), f"{path} belongs to another model"
        for name, parameter in parameters.items():
            own_rows(parameter)[0].copy_(own_rows(saved.like(parameter, name))[0])


class _Saved:
    """The tensors of one file, or of the files of several processes."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._files = files
        self.names = set(files[0].keys())

    def like(self, tensor: Tensor, name: str) -> Tensor:
        """Returns a saved tensor in new memory, on the device of `tensor` and with this process's rows of it.

        A number without dimensions is whole in every file.
        """
        slices = [file.get_slice(name) for file in self._files]
        if not slices[0].get_shape():
            return self._files[0].get_tensor(name).to(tensor.device, copy=True)
        own, first = own_rows(tensor)
        rows = own.new_empty(own.shape)
        offset = -first  # of the file's rows among our own
        for part in slices:
            count = part.get_shape()[0]
            begin, end = max(0, -offset), min(count, len(own) - offset)
            if begin < end:
                rows[offset + begin : offset + end] = part[begin:end]
            offset += count
        return like(tensor, rows)


@contextmanager
def _opened(path: Path) -> Iterator[_Saved]:
    """Yields the tensors that were saved under a name, by however many processes."""
    paths = [path] if path.exists() else sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    with ExitStack() as stack:
        yield _Saved([stack.enter_context(safe_open(each, "pt")) for each in paths])
