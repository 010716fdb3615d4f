"""What each thing that is done only on a GPU brings to a step: each left out in turn, in one process; prints a table.

python -m benchmarks.gpu [--model DIR] [--size 1.7B] [--out DIR] [--batch 32] [--new-tokens 64]
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tests.smollm2 import smollm2

from benchmarks.trainer.models import of_size
from benchmarks.trainer.workload import PARTS, Setting, records
from skill_trainer.curriculum import Curriculum
from skill_trainer.decoding import Growing
from skill_trainer.device import compute_device, prepare, without_order
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel, silence
from skill_trainer.objective import make_objective
from skill_trainer.packing import Packing
from skill_trainer.step_report import StepReport
from skill_trainer.steps.examples import make_examples

STEPS = 3
"""Measured ones; one more warms up."""


@contextmanager
def as_they_are(*_: Any) -> Iterator[None]:
    """Leaves weights as they are."""
    yield


VARIANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "all of it": contextlib.nullcontext,
    "decode steps launched kernel by kernel": partial(
        patch, "skill_trainer.rollout.decoding", lambda model, prompts, _: Growing(model, prompts)
    ),
    "weights made bf16 for each token": partial(patch, "skill_trainer.rollout.decoding_weights", as_they_are),
    "attention sequence by sequence": partial(patch.object, Packing, "of", partial(Packing.of, padded=False)),
    "kernels whose sums have no order": without_order,
}


def main() -> None:
    """Runs all variants one after the other and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="instead of SmolLM2-135M")
    parser.add_argument("--size", default="", help="random weights of this size instead, see benchmarks.trainer.models")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"), help="folder for these")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    silence()
    device = compute_device()
    prepare()
    setting = Setting(batch=options.batch, new_tokens=options.new_tokens, steps=STEPS)
    model = LanguageModel.load(of_size(options.model or smollm2(), options.size, options.out), device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {options.size or '135M'}, {setting.name}\n")
    print(f"| | s/step | {' | '.join(PARTS)} | against all of it |\n{'| --- ' * (len(PARTS) + 3)}|")
    whole = 0.0
    for variant, without in VARIANTS.items():
        with without():
            steps = _steps(model, setting)
        seconds = sum(sum(step.seconds.values()) for step in steps) / len(steps)
        whole = whole or seconds
        parts = [sum(step.seconds[part] for step in steps) / len(steps) for part in PARTS]
        cells = " | ".join(f"{each:.3f}" for each in (seconds, *parts))
        print(f"| {variant} | {cells} | {seconds / whole:.2f} |", flush=True)


def _steps(model: LanguageModel, setting: Setting) -> list[StepReport]:
    method, steps = setting.method(), []
    examples = make_examples(records(setting.batch * (STEPS + 1)), method, model.tokens)
    train(
        model, make_objective(method, model), make_optimizer(model), Curriculum(examples), method, done=0,
        save_every=1000, on_step=steps.append, save=lambda _: None, stop=lambda: False,
    )  # fmt: skip
    return steps[1:]


if __name__ == "__main__":
    main()
