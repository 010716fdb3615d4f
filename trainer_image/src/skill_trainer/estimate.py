"""What a run will take, memory and time, before anything starts. Writes nothing, and loads no weights.

Memory is computed (`memory`). Time is measured: the real loop takes a few steps with models of two and of six layers,
otherwise of this model's shape, on the run's own data; what a layer adds is multiplied by the number of layers. Their
weights are random, so answers hardly ever end before their limit: the times are for answers as long as they may be.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from math import ceil
from pathlib import Path

import torch
from pydantic import Field
from rich.table import Table

from skill_contract.model import Document
from skill_contract.spec import Method
from skill_contract.step import TrainConfig
from skill_store.repository import Repository
from skill_trainer.curriculum import Curriculum
from skill_trainer.device import compute_device, gpu_bytes, num_threads, prepare, total_memory
from skill_trainer.errors import ParentMismatch
from skill_trainer.loop import make_optimizer, train
from skill_trainer.memory import COMMON_GPU, FP32, Room, state_numbers
from skill_trainer.model import ChatTokenizer, LanguageModel
from skill_trainer.objective import make_objective
from skill_trainer.prompts import student_messages
from skill_trainer.rollout import BATCH_ROWS, greedy
from skill_trainer.step_report import StepReport
from skill_trainer.steps.check import small_files
from skill_trainer.steps.examples import make_curriculum
from skill_trainer.steps.golden import TRIED
from skill_trainer.steps.inputs import inherited_suites, read_inputs
from skill_trainer.steps.measure import gain_is_measured, gain_questions
from skill_trainer.steps.probe import num_probes, probe_places, probe_suites
from skill_trainer.steps.room import memory_of, sizes

DEPTHS = (2, 6)
"""Layers of the two models that are timed."""
STEPS = 3
"""Of each. The first one fills caches and moments; of the others the quicker one counts."""
MEASURING, ALONE = "measuring", "alone"
"""Answering a batch of questions, and one question by itself."""


@dataclass(frozen=True)
class Subject:
    """The model that is to be trained, without its weights."""

    folder: Path
    suites: Mapping[str, bytes]
    """Of the skills that it has learned."""


@dataclass(frozen=True)
class Load:
    """What the model will have to do."""

    curriculum: Curriculum
    prompts: Sequence[Sequence[int]]
    """Token ids of a batch of questions."""
    part_tokens: int
    """How many tokens go through the model at the same time."""


class Estimate(Document):
    """Bytes and seconds."""

    parameters: int
    trained: int
    """Parameters that training changes."""
    memory: dict[str, int]
    """By what it is for; not all of it is there at the same time (`memory.Memory`)."""
    peak: int
    steps: int
    questions: int
    """Asked in all, before and after training."""
    probes: int
    probe_questions: int
    """Asked in each of the probes."""
    golden_prompts: int
    """Tried at most, one at a time."""
    checkpoint: int
    """Bytes of the largest one."""
    device: str
    """Where the times were measured."""
    step_seconds: dict[str, float] = Field({})
    """Of one step, by part."""
    training_seconds: float = 0.0
    measuring_seconds: float = 0.0
    probing_seconds: float = 0.0
    golden_seconds: float = 0.0
    not_timed: str = ""
    """Why there are no times."""

    @property
    def total_seconds(self) -> float:
        """Training and all that is asked; without loading, saving and publishing."""
        return self.training_seconds + self.measuring_seconds + self.probing_seconds + self.golden_seconds

    def table(self) -> Table:
        """Returns what a person wants to know, for a terminal."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(justify="left")
        table.add_column(justify="right")
        table.add_column(justify="left", style="dim")
        table.add_row("parameters", f"{self.parameters / 1e6:,.1f} M", f"{self.trained / 1e6:,.1f} M of them trained")
        used = {part.replace("_", " "): size for part, size in self.memory.items() if size}
        parts = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in used.items())
        table.add_row("memory at its peak", f"{self.peak / 1e9:.2f} GB", parts)
        table.add_row("a checkpoint", f"{self.checkpoint / 1e9:.2f} GB", "see training.gracePeriodSeconds")
        if self.not_timed:
            table.add_row("time", "?", self.not_timed)
            return table
        split = ", ".join(f"{part} {seconds:.2f}" for part, seconds in self.step_seconds.items())
        table.add_row("a step", f"{sum(self.step_seconds.values()):.2f} s", split)
        table.add_row("training", _clock(self.training_seconds), f"{self.steps} steps")
        table.add_row("measuring", _clock(self.measuring_seconds), f"{self.questions} questions, before and after")
        probed = f"{self.probe_questions} questions, {self.probes} times while it trains"
        table.add_row("probes", _clock(self.probing_seconds), probed)
        table.add_row("golden prompts", _clock(self.golden_seconds), f"{self.golden_prompts}, one at a time")
        table.add_row("all of it", _clock(self.total_seconds), f"on this machine: {self.device}")
        return table


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def estimate(config: TrainConfig) -> Estimate:
    """Returns what a run with this configuration will take; times are this machine's.

    Raises:
        ParentMismatch: where there is no model to begin with.
        ConfigInvalid, DataError, PromptTooLong, ModelInvalid, StoreError: as `check` does.
    """
    device, method, inputs = compute_device(), config.method, read_inputs(config)
    prepare()
    with tempfile.TemporaryDirectory() as scratch:
        subject = _subject(config, Path(scratch))
        tokens = ChatTokenizer.load(subject.folder, method.chat_template_arguments)
        curriculum = make_curriculum(inputs, config, tokens)
        suites = (inputs.held_out, *inputs.retention, *inherited_suites(subject.suites, inputs))
        asked = [record for suite in suites for record in suite.records]
        gained = gain_questions(inputs.held_out, inputs.train).records if gain_is_measured(config) else ()
        probed = probe_suites(suites, probe_places(suites, config.gates.monitors.questions))
        made = _sizes(config, subject, curriculum, device).model_copy(update={
            # Those of the gain are shown their demonstrations, another one and, after training, their own again.
            "questions": 2 * len(asked) + 3 * len(gained),
            "probe_questions": sum(len(suite.records) for suite in probed),
            "golden_prompts": min(2 * TRIED, len(asked)),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {num_threads()} threads",
        })  # fmt: skip
        prompts = [tokens.encode(student_messages(record), record.tools) for record in asked[:BATCH_ROWS]]
        shape, adapter = sizes(subject.folder, method)
        room = Room.of(shape, method, adapter, gpu_bytes=gpu_bytes(device))
        return _timed(made, subject, method, Load(curriculum, prompts, room.part_tokens), device)


def _subject(config: TrainConfig, scratch: Path) -> Subject:
    """Returns the head of the repository, or the base model that would be imported into an empty one."""
    repository = Repository(config.model.uri)
    if head := repository.head():
        manifest = repository.manifest(head.ref)
        small_files(repository, head.ref, manifest, scratch)
        return Subject(scratch, repository.suites(head.ref))
    folder = Path(config.model.base)
    if not config.model.base or not (folder / "config.json").is_file():
        raise ParentMismatch(
            f"{config.model.uri} has no head, and model.base {config.model.base!r} is no Hugging Face directory of "
            "this machine: give one of them"
        )
    return Subject(folder, {})


def _sizes(config: TrainConfig, subject: Subject, curriculum: Curriculum, device: torch.device) -> Estimate:
    method = config.method
    shape, adapter = sizes(subject.folder, method)
    memory = memory_of(config, shape, adapter, curriculum.examples, gpu_bytes=gpu_bytes(device) or COMMON_GPU)
    trained, steps = adapter.trained if adapter else shape.num_parameters, curriculum.steps(method)
    probes = num_probes(config, steps)
    return Estimate(
        parameters=shape.num_parameters, trained=trained, memory=asdict(memory), peak=memory.peak, steps=steps,
        probes=probes, checkpoint=FP32 * (state_numbers(shape, method, adapter)[1] + (trained if probes else 0)),
        questions=0, probe_questions=0, golden_prompts=0, device="",
    )  # fmt: skip


def _timed(made: Estimate, subject: Subject, method: Method, load: Load, device: torch.device) -> Estimate:
    shape, _ = sizes(subject.folder, method)
    depths = sorted({min(depth, shape.layers) for depth in DEPTHS})
    embedding = shape.vocabulary * shape.width
    weights = 2 * embedding + (shape.num_parameters - embedding) * depths[-1] // shape.layers
    needed, present = 5 * FP32 * weights, total_memory(device)
    if needed > present / 2:
        reason = f"a probe with {depths[-1]} layers would take {needed / 1e9:.0f} of {present / 1e9:.0f} GB"
        return made.model_copy(update={"not_timed": reason})
    seconds = timed_step(subject.folder, shape.layers, method, load, device)
    batch, alone = seconds.pop(MEASURING), seconds.pop(ALONE)

    def asking(questions: int) -> float:
        return batch * ceil(questions / len(load.prompts))

    return made.model_copy(update={
        "step_seconds": seconds,
        "training_seconds": made.steps * sum(seconds.values()),
        "measuring_seconds": asking(made.questions),
        "probing_seconds": made.probes * asking(made.probe_questions),
        "golden_seconds": made.golden_prompts * alone,
    })  # fmt: skip


def timed_step(folder: Path, layers: int, method: Method, load: Load, device: torch.device) -> dict[str, float]:
    """Returns the seconds of a step by part, of a batch of questions and of one alone, with a model of `layers` layers.

    Measured are those of DEPTHS.
    """
    depths = sorted({min(depth, layers) for depth in DEPTHS})
    few = [probe(folder, depth, method, load, device) for depth in depths]
    return _extrapolated(depths, few, layers)


def probe(folder: Path, layers: int, method: Method, load: Load, device: torch.device) -> dict[str, float]:
    """Returns the same of a model of so many layers, measured."""
    model, limit = LanguageModel.random(folder, layers, device), method.rollout.max_new_tokens
    asking = {}
    for name, prompts in ((MEASURING, load.prompts), (ALONE, load.prompts[:1])):
        greedy(model, prompts, max_new_tokens=1)
        start = time.perf_counter()
        greedy(model, prompts, max_new_tokens=limit)
        asking[name] = time.perf_counter() - start
    if method.adaptation.adapter:
        model.adapt(method.adaptation.adapter, method.seed)
    reports: list[StepReport] = []
    train(
        model, make_objective(method, model), make_optimizer(model), load.curriculum,
        method.model_copy(update={"steps": STEPS}), done=0, save_every=STEPS, on_step=reports.append,
        save=_nothing, stop=lambda: False, part_tokens=load.part_tokens,
    )  # fmt: skip
    quickest = min(reports[1:], key=lambda report: sum(report.seconds.values()))
    return {**quickest.seconds, **asking}


def _extrapolated(depths: Sequence[int], seconds: Sequence[Mapping[str, float]], layers: int) -> dict[str, float]:
    """Returns the seconds of a model of `layers` layers: a straight line through those of one or two other depths."""
    if len(depths) == 1:
        return dict(seconds[0])
    (low, high), (few, many) = depths, seconds
    slopes = {part: (many[part] - few[part]) / (high - low) for part in many}
    return {part: max(0.0, many[part] + slopes[part] * (layers - high)) for part in many}


def _nothing(step: int) -> None:
    """No checkpoint."""
