"""What a step must compute and read at least, and how fast this machine does both: the floor under any trainer's time.

Counted are the products of weights and tokens (two operations for each number of a matrix), and attention's own. The
prefix that all prompts share counts once, padding never. Everything else (norms, rotations, softmax, the optimiser)
counts as nothing: a floor, not a goal that can be reached.

Each token of an answer needs all weights once more, however few rows there are, so the floor under generation is the
time of its products or that of reading the weights, whichever is longer (the roofline model, Williams et al. 2009).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.trainer.workload import SKIP, Setting, Step, records
from skill_trainer.device import wait_for
from skill_trainer.model import ChatTokenizer
from skill_trainer.packing import common_prefix
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


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine can do."""

    rate: float
    """Operations per second of large products: fp32 on a CPU, bf16 on a GPU."""
    bandwidth: float
    """Bytes per second that it reads."""
    number: int
    """Bytes of a weight that a product reads."""

    @classmethod
    def measured(cls, device: torch.device) -> Machine:
        """Returns the best rates that are seen, over the libraries that PyTorch multiplies with."""
        is_gpu = device.type == "cuda"
        size, dtype = (8192, torch.bfloat16) if is_gpu else (2048, torch.float32)
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
        many = torch.randn(READ * (8 if is_gpu else 1), device=device)
        products: list[Callable[[], object]] = [lambda: a @ b]
        if torch.backends.mkldnn.is_available() and not is_gpu:
            products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))  # noqa: SLF001
        rate = 2 * size**3 / min(shortest(product, device) for product in products)
        return cls(rate, 4 * len(many) / shortest(many.sum, device), dtype.itemsize)


READ, REPEATS = 2**27, 8


@dataclass(frozen=True, slots=True)
class Floor:
    """The least seconds of a step."""

    products: float
    """Of the products alone, at the machine's best rate."""
    roofline: float
    """The same, but generation not faster than its weights can be read."""


def least(folder: Path, setting: Setting, steps: Sequence[Step], machine: Machine) -> Floor:
    """Returns the floor under an average step."""
    examples = make_examples(records(setting.batch * len(steps)), setting.method(), ChatTokenizer.load(folder))
    sizes = Sizes.of(folder, setting.vocabulary)
    batches = (examples[start : start + setting.batch] for start in range(0, len(examples), setting.batch))
    each = [
        _step(sizes, batch, [len(answer) for answer in step.answers], machine)
        for batch, step in zip(batches, steps, strict=True)
    ]
    return Floor(*(sum(seconds) / len(each) for seconds in zip(*each, strict=True)))


def _step(sizes: Sizes, batch: Sequence[Example], answers: Sequence[int], machine: Machine) -> tuple[float, float]:
    """Returns the least seconds by products alone, and by the roofline."""
    prompts = [len(example.student) for example in batch]
    student = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    teacher = [len(example.teacher) + answer for example, answer in zip(batch, answers, strict=True)]
    own, seen = common_prefix([each.student for each in batch]), common_prefix([each.teacher for each in batch])
    rows = sum(max(0, answer - SKIP) for answer in answers)
    learn = (sizes.forward(teacher, seen, rows) + 3 * sizes.forward(student, own, rows)) / machine.rate
    generate = sizes.forward(student, own, sum(answers)) / machine.rate
    prefill = sizes.forward(prompts, own, len(prompts)) / machine.rate
    decode = (max(answers) - 1) * machine.number * (sizes.body + sizes.head) / machine.bandwidth
    return learn + generate, learn + max(generate, prefill + decode)


def shortest(work: Callable[[], object], device: torch.device) -> float:
    """Returns the shortest of a few times."""
    took: list[float] = []
    for _ in range(REPEATS):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        took.append(time.perf_counter() - start)
    return min(took)
