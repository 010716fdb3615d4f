"""What both sides train on: the same model, prompts, batches, answers and settings."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from skill_contract.spec import Method
from skill_trainer.data import Record
from skill_trainer.device import wait_for

SKILL = Path(__file__).parents[2] / "tests" / "skills" / "velmora" / "train.jsonl"
LEARNING_RATE = 1e-5
EMA_RATE = 0.01
SKIP = 3
PARTS = ("generate", "teacher", "student", "backward", "optimizer")
"""Of a step, as both sides tell their seconds."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    batch: int
    """Sequences of a step."""
    new_tokens: int
    """Most tokens of an answer."""
    vocabulary: int = 0
    """Padded to so many entries; 0: the model's own."""
    divergence: str = "ForwardKL"
    size: str = ""
    """Of a model with random weights, by `models.SIZES`; empty: SmolLM2-135M itself."""
    steps: int = 3
    """Measured ones; one more warms up."""

    @property
    def name(self) -> str:
        """A short name for tables."""
        words = [f"{self.batch} x {self.new_tokens}"]
        words += [f"V = {self.vocabulary}"] if self.vocabulary else []
        words += [self.size] if self.size else []
        words += [self.divergence] if self.divergence != "ForwardKL" else []
        return ", ".join(words)

    def method(self) -> Method:
        """The setting as a SkillUpdate would have it."""
        return Method.parse(
            {
                "batchSize": self.batch, "steps": self.steps + 1, "rollout": {"maxNewTokens": self.new_tokens},
                "optimizer": {"learningRate": LEARNING_RATE, "warmupSteps": 0, "schedule": "Constant"},
                "sdft": {
                    "divergence": self.divergence, "skipTokens": SKIP,
                    "teacher": {"weights": "EMA", "emaRate": EMA_RATE},
                },
            }
        )  # fmt: skip


@dataclass(slots=True)
class Step:
    """What one step took and gave."""

    seconds: float
    parts: dict[str, float]
    loss: float
    answers: list[list[int]]


@dataclass(slots=True)
class Run:
    """What one process has measured."""

    steps: list[Step]
    peak_bytes: int
    """Largest memory: of the GPU's allocations, on a CPU resident of the process."""
    before_bytes: int
    """The same before the first step, with the model loaded."""

    def dump(self, path: Path) -> None:
        """Writes the run as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Run:
        """Returns what `dump` has written."""
        document = json.loads(path.read_text())
        document["steps"] = [Step(**step) for step in document["steps"]]
        return cls(**document)


class Clock:
    """Adds up wall time by part; parts inside parts count once, for the inner one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            wait_for(self._device)
            took = time.perf_counter() - start
            self.seconds[part] += took - self._inner
            self._inner = outer + took


def records(count: int) -> list[Record]:
    """Returns `count` training records in their order, from the beginning again where there are too few."""
    lines = [json.loads(line) for line in SKILL.read_text().splitlines()]
    chosen = [lines[number % len(lines)] for number in range(count)]
    return [
        Record(
            id=f"r{number}", messages=({"role": "user", "content": line["prompt"]},),
            demonstration=line["completion"], completion=line["completion"],
        )
        for number, line in enumerate(chosen)
    ]  # fmt: skip
