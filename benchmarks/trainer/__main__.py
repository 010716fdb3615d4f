"""Our SDFT step beside TRL's, on the same answers, each in a process of its own; prints a table in Markdown.

uv run --group peers python -m benchmarks.trainer --out DIR [--threads 2] [--device cuda] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tests.smollm2 import smollm2

from benchmarks.trainer.floor import Floor, Machine, least
from benchmarks.trainer.models import of_size, with_vocabulary
from benchmarks.trainer.workload import PARTS, Run, Setting, Step

SETTINGS = (
    Setting(batch=8, new_tokens=16),
    Setting(batch=8, new_tokens=64),
    Setting(batch=16, new_tokens=64),
    Setting(batch=32, new_tokens=64, steps=2),
    Setting(batch=8, new_tokens=64, vocabulary=98_304, steps=2),
    Setting(batch=8, new_tokens=64, divergence="ReverseKL", steps=2),
)
GPU_SETTINGS = (
    Setting(batch=8, new_tokens=64),
    Setting(batch=32, new_tokens=64),
    Setting(batch=128, new_tokens=128),
    Setting(batch=32, new_tokens=128, size="1.7B"),
)


def main() -> None:
    """Runs the settings one after the other and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help='of a setting, such as "8 x 16"')
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--model", type=Path, help="instead of SmolLM2-135M")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    is_gpu = options.device.type == "cuda"
    where = f"{torch.cuda.get_device_name()}, bf16" if is_gpu else f"{options.threads} threads, fp32"
    print(f"torch {torch.__version__}, {where}, SmolLM2-135M where nothing else is said\n")
    parts = " | ".join(PARTS)
    print(f"| batch x new tokens | | s/step | {parts} | tokens/s | peak GB | products | roofline |")
    print("| --- " * 12 + "|")
    for setting in GPU_SETTINGS if is_gpu else SETTINGS:
        if not options.only or setting.name in options.only:
            _compare(setting, options.model or smollm2(), options)


def _compare(setting: Setting, folder: Path, options: argparse.Namespace) -> None:
    out = options.out
    model = of_size(with_vocabulary(folder, setting.vocabulary, out), setting.size, out)
    machine = Machine.measured(options.device)  # anew each time: a shared machine is not equally fast all the time
    theirs = _run("peer", model, setting, options)
    ours = _run("ours", model, setting, options, replay=out / f"{setting.name} peer.json")
    floor = least(model, setting, ours.steps, machine)
    for name, run in (("TRL", theirs), ("ours", ours)):
        print(_row(setting.name, name, run, floor))
    apart = max(abs(a.loss - b.loss) for a, b in zip(ours.steps, theirs.steps, strict=True))
    print(
        f"| | **ratio** | **{_seconds(theirs) / _seconds(ours):.2f}** | | | | | | | "
        f"**{ours.peak_bytes / theirs.peak_bytes:.2f}** | {machine.rate / 1e12:.3g} TFLOP/s | "
        f"{machine.bandwidth / 1e9:.0f} GB/s; losses within {apart:.1e} |",
        flush=True,
    )


def _run(side: str, model: Path, setting: Setting, options: argparse.Namespace, *, replay: Path | None = None) -> Run:
    """Returns a run in a process of its own; one that is there already is not run again."""
    path = options.out / f"{setting.name} {side}.json"
    if not path.exists():
        command = [sys.executable, "-m", f"benchmarks.trainer.{side}", "--model", str(model), "--out", str(path)]
        command += ["--setting", json.dumps(asdict(setting)), "--threads", str(options.threads)]
        command += ["--device", str(options.device)]
        command += ["--replay", str(replay)] if replay else []
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
    return Run.load(path)


def _measured(run: Run) -> Sequence[Step]:
    """Returns all steps but the first, which pays for what is made once."""
    return run.steps[1:]


def _seconds(run: Run) -> float:
    return sum(step.seconds for step in _measured(run)) / len(_measured(run))


def _row(setting: str, name: str, run: Run, floor: Floor) -> str:
    steps = _measured(run)
    parts = [sum(step.parts[part] for step in steps) / len(steps) for part in PARTS]
    answered = sum(len(answer) for step in steps for answer in step.answers) / sum(step.seconds for step in steps)
    cells = [f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}" for seconds in (_seconds(run), *parts)]
    return (
        f"| {setting} | {name} | {' | '.join(cells)} | {answered:.0f} | {run.peak_bytes / 1e9:.2f} | "
        f"{floor.products / _seconds(run):.0%} | {floor.roofline / _seconds(run):.0%} |"
    )


if __name__ == "__main__":
    main()
