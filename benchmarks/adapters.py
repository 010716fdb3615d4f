"""What an adapter saves: `python -m benchmarks.adapters`. Prints a Markdown table.

SmolLM2-135M on a CPU in one thread, four steps of the real loop on one of the tests' skills, each setting in a process
of its own, whose peak is what the kernel counts (ru_maxrss). Seconds are the process's own, so that other work on the
machine counts less. The learning rate is too small to change an answer: all settings do the same work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

SKILL = Path(__file__).parents[1] / "tests" / "skills" / "velmora" / "train.jsonl"
SETTINGS = (("Full", "EMA"), ("Full", "Frozen"), ("LoRA", "EMA"), ("LoRA", "Frozen"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    if only := parser.parse_args().only:
        print(json.dumps(measured(*only)))
        return
    print("| adaptation | teacher | trained weights, M | seconds of a step | peak memory, GB | checkpoint, MB |")
    print("| --- | --- | --: | --: | --: | --: |")
    for kind, teacher in SETTINGS:
        row = in_a_process(kind, teacher)
        print(
            f"| {kind} | {teacher} | {row['trained'] / 1e6:.1f} | {row['seconds']:.1f} | {row['peak'] / 1e9:.2f} "
            f"| {row['checkpoint'] / 1e6:.0f} |", flush=True,
        )  # fmt: skip


def in_a_process(kind: str, teacher: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.adapters", "--only", kind, teacher]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(ended.stdout.splitlines()[-1])


def measured(kind: str, teacher: str) -> dict[str, Any]:
    """Returns what four steps in this process took."""
    import torch  # noqa: PLC0415 - not in the process that only starts the others
    from tests.smollm2 import smollm2  # noqa: PLC0415

    from skill_contract.spec import Method  # noqa: PLC0415
    from skill_trainer.checkpoint import save_state  # noqa: PLC0415
    from skill_trainer.curriculum import Curriculum  # noqa: PLC0415
    from skill_trainer.data import read_records  # noqa: PLC0415
    from skill_trainer.device import prepare  # noqa: PLC0415
    from skill_trainer.loop import make_optimizer, train  # noqa: PLC0415
    from skill_trainer.model import LanguageModel, silence  # noqa: PLC0415
    from skill_trainer.objective import make_objective  # noqa: PLC0415
    from skill_trainer.steps.examples import make_examples  # noqa: PLC0415

    silence()
    device = torch.device("cpu")
    prepare()
    method = Method.parse(
        {
            "batchSize": 8, "steps": 4, "rollout": {"maxNewTokens": 32}, "optimizer": {"learningRate": 1e-9},
            "sdft": {"teacher": {"weights": teacher}}, "adaptation": {"type": kind},
        }
    )  # fmt: skip
    model = LanguageModel.load(smollm2(), device)
    if method.adaptation.adapter:
        model.adapt(method.adaptation.adapter, method.seed)
    objective, optimizer = make_objective(method, model), make_optimizer(model)
    examples = make_examples(tuple(read_records(str(SKILL), "train")), method, model.tokens)
    times = [time.process_time()]
    train(
        model, objective, optimizer, Curriculum(examples), method, done=0, save_every=method.steps or 1,
        save=lambda _: None, stop=lambda: False, on_step=lambda _: times.append(time.process_time()),
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        save_state(state, model, objective.teacher, optimizer, [])
        checkpoint = sum(path.stat().st_size for path in state.iterdir())
    return {
        "trained": sum(weight.numel() for weight in model.trained_parameters().values()),
        "seconds": median(after - before for before, after in pairwise(times[1:])),
        "peak": peak,
        "checkpoint": checkpoint,
    }


if __name__ == "__main__":
    main()
