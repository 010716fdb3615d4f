"""What a step must compute at least, and how fast this machine multiplies matrices: the floor under any trainer's time.

Counted are the products of weights and tokens (two operations for each number of a matrix), and attention's own. The
prefix that all prompts share counts once, padding never. Everything else (norms, rotations, softmax, the optimiser) and
the time that memory takes counts as nothing: a floor, not a goal that can be reached.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.trainer.workload import SKIP, Setting, Step, records
from skill_trainer.model import ChatTokenizer, common_prefix
from skill_trainer.prompts import Example
from skill_trainer.steps.examples import make_examples


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a model that products depend on."""

    body: int
    """Weights of all layers, without embedding and head."""
    head: int
    layers: int
    width: int

    @classmethod
    def of(cls, folder: Path, vocabulary: int) -> Sizes:
        """Returns the sizes of a Llama by its config.json."""
        config = json.loads((folder / "config.json").read_text())
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        attention = width * width * 2 + 2 * width * width * groups // heads
        body = layers * (attention + 3 * width * config["intermediate_size"])
        return cls(body, width * (vocabulary or config["vocab_size"]), layers, width)

    def forward(self, lengths: Sequence[int], shared: int, rows: int) -> float:
        """Returns the operations of a pass over sequences that begin with `shared` same tokens; `rows` of logits."""
        tokens = shared + sum(length - shared for length in lengths)
        seen = shared**2 / 2 + sum((length**2 - shared**2) / 2 for length in lengths)
        return 2 * tokens * self.body + 4 * seen * self.width * self.layers + 2 * rows * self.head


def operations(folder: Path, setting: Setting, steps: Sequence[Step]) -> float:
    """Returns the floating-point operations of an average step."""
    examples = make_examples(records(setting.batch * len(steps)), setting.method(), ChatTokenizer.load(folder))
    sizes = Sizes.of(folder, setting.vocabulary)
    batches = (examples[start : start + setting.batch] for start in range(0, len(examples), setting.batch))
    each = [
        _step(sizes, batch, [len(answer) for answer in step.answers])
        for batch, step in zip(batches, steps, strict=True)
    ]
    return sum(each) / len(each)


def _step(sizes: Sizes, batch: Sequence[Example], answers: Sequence[int]) -> float:
    student = [len(example.student) + answer for example, answer in zip(batch, answers, strict=True)]
    teacher = [len(example.teacher) + answer for example, answer in zip(batch, answers, strict=True)]
    own, seen = common_prefix([each.student for each in batch]), common_prefix([each.teacher for each in batch])
    rows = sum(max(0, answer - SKIP) for answer in answers)
    generate = sizes.forward(student, own, sum(answers))
    return generate + sizes.forward(teacher, seen, rows) + 3 * sizes.forward(student, own, rows)


def matmul_rate(size: int = 2048, repeats: int = 8) -> float:
    """Returns the best rate of a square product in fp32, in operations per second."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = min(_seconds(a, b) for _ in range(repeats))
    return 2 * size**3 / best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start
