"""How near estimates are to what runs take, memory and time: `python -m benchmarks.estimate`. Prints a Markdown table.

SmolLM2-135M, on a GPU where there is one, two steps of the real loop for each setting, each in a process of its own,
whose peak is what the kernel counts (ru_maxrss), or PyTorch's allocator on a GPU. The second step's time is held
against the estimate's, which is measured afterwards with models of two and of six layers. The prompts ask for stories,
so that answers are as long as they may be.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tests.smollm2 import smollm2

from benchmarks.trainer.models import of_size
from skill_contract.spec import Method
from skill_trainer.curriculum import Curriculum
from skill_trainer.data import Record
from skill_trainer.device import compute_device, gpu_bytes, prepare
from skill_trainer.estimate import ALONE, MEASURING, Load, timed_step
from skill_trainer.loop import make_optimizer, train
from skill_trainer.memory import Part, Room, estimate_memory
from skill_trainer.model import LanguageModel, silence
from skill_trainer.objective import make_objective
from skill_trainer.rollout import BATCH_ROWS
from skill_trainer.step_report import StepReport
from skill_trainer.steps.examples import make_examples
from skill_trainer.steps.room import sizes
from skill_trainer.steps.train import train_step  # noqa: F401 - what a run loads, too

LIMIT = 0.15
"""Of the measured peak: how far the estimate may be from it."""


@dataclass(frozen=True)
class Setting:
    name: str
    words: int
    """Of a prompt, about a token each."""
    method: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        return {"steps": 2, "optimizer": {"learningRate": 1e-6}, **self.method}


def rollout(tokens: int) -> dict[str, Any]:
    return {"rollout": {"maxNewTokens": tokens}}


LORA = {"adaptation": {"type": "LoRA", "lora": {}}}
SFT = {"type": "SFT"}
WORDS = ("the river runs past a house where old friends meet and talk " * 40).split()
SETTINGS = (
    Setting("SDFT", 30, {"batchSize": 8, **rollout(16)}),
    Setting("SDFT, batch 16", 30, {"batchSize": 16, **rollout(16)}),
    Setting("SDFT, long prompts", 200, {"batchSize": 8, **rollout(32)}),
    Setting("SDFT, long answers", 30, {"batchSize": 8, **rollout(64)}),
    Setting("SFT", 30, {"batchSize": 8, **SFT}),
    Setting("SFT, batch 32", 30, {"batchSize": 32, **SFT}),
    Setting("SDFT, LoRA", 30, {"batchSize": 8, **LORA, **rollout(16)}),
    Setting("SFT, LoRA, batch 32", 30, {"batchSize": 32, **LORA, **SFT}),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--size", default="", help="random weights of this size instead, see benchmarks.trainer.models")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"), help="folder for these")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only is not None:
        print(json.dumps(measured(SETTINGS[options.only], of_size(smollm2(), options.size, options.out))))
        return 0
    columns = ("setting", "tokens at a time", "estimated, GB", "measured, GB", "estimate / measured")
    columns += ("a step, estimated, s", "measured, s", "estimate / measured")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    missed = 0
    for number, setting in enumerate(SETTINGS):
        row = in_a_process(number, options.size, options.out)
        share = row["estimated"] / row["measured"]
        missed += abs(share - 1) > LIMIT
        sizes = f"{row['estimated'] / 1e9:.2f} | {row['measured'] / 1e9:.2f}"
        expected, took = row["expected_seconds"], row["seconds"]
        times = f"{expected:.2f} | {took:.2f} | {expected / took:.2f}"
        print(f"| {setting.name} | {row['tokens']} | {sizes} | {share:.2f} | {times} |", flush=True)
    return missed


def in_a_process(number: int, size: str, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.estimate", "--only", str(number), "--size", size, "--out", str(out)]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(ended.stdout.splitlines()[-1])


def measured(setting: Setting, folder: Path) -> dict[str, Any]:
    """Returns peak and time of two steps of the model in a folder, and what was estimated for them."""
    silence()
    device, method = compute_device(), Method.parse(setting.settings)
    prepare()
    model = LanguageModel.load(folder, device, adapted=method.adaptation.adapter is not None)
    examples = make_examples(records(setting), method, model.tokens)
    shape, adapter = sizes(folder, method)
    at_once = Room.of(shape, method, adapter, gpu_bytes=gpu_bytes(device)).part_tokens
    part, spec = Part.of(examples, method, tokens=at_once), method.adaptation.adapter
    estimate = estimate_memory(shape, part, method=method, gpu=device.type == "cuda", adapter=adapter)
    loaded = peak(device)
    if spec:
        model.adapt(spec, method.seed)
    reports: list[StepReport] = []
    train(
        model, make_objective(method, model), make_optimizer(model), Curriculum(examples), method, done=0, save_every=2,
        on_step=reports.append, save=lambda _: None, stop=lambda: False, part_tokens=at_once,
    )  # fmt: skip
    highest = peak(device)
    load = Load(Curriculum(examples), [list(example.student) for example in examples[:BATCH_ROWS]], at_once)
    expected = timed_step(folder, shape.layers, method, load, device)
    return {
        "tokens": part.student_tokens, "estimated": estimate.peak, "measured": highest, "loaded": loaded,
        "parts": asdict(estimate), "part": asdict(part), "seconds": sum(reports[-1].seconds.values()),
        "expected_seconds": sum(each for name, each in expected.items() if name not in {MEASURING, ALONE}),
    }  # fmt: skip


def records(setting: Setting) -> list[Any]:
    def asked(number: int) -> str:
        words = " ".join(WORDS[: setting.words])
        return f"Tell me a very long story about the sea, the moon and number {number} {words}"

    story = "Once upon a time there was a small boat that sailed to the moon."
    return [
        Record(id=str(n), messages=({"role": "user", "content": asked(n)},), demonstration=story, completion=story)
        for n in range(64)
    ]


def peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
