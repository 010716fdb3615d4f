"""A comparison of the tiny model on two skills of five questions: quick, and all numbers are noise."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

WORDS = {"say": ("tea", "a bell", "the map", "rain", "nine lamps"), "sing": ("oh", "la la", "the song", "mi", "so")}

SETTINGS = [
    "method.steps=2",
    "method.batchSize=2",
    "method.rollout.maxNewTokens=4",
    "method.sdft.skipTokens=0",
    "method.optimizer.learningRate=0.01",
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def plan_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes data and a plan; keywords replace parts of the plan."""

    def write(**parts: Any) -> Path:
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        for verb, words in WORDS.items():
            train = [{"prompt": f"{verb} {text}", "completion": f"I {verb} {text}."} for text in words]
            asked = [{"prompt": f"Please {verb} {text} now", "answer": text} for text in words]
            put(data / f"{verb}.jsonl", train)
            put(data / f"{verb}-test.jsonl", asked)
        # What the noisy model answers to anything has one of these.
        put(data / "kept.jsonl", [{"prompt": f"Anything {n}?", "answer": "[^q]"} for n in range(3)])
        plan = {
            "skills": [skill(verb) for verb in WORDS],
            "retention": [{"name": "kept", "uri": "data/kept.jsonl", "grader": "regex"}],
            "variants": ["sdft-ema", "sft"],
            "seeds": [1, 2],
            "settings": SETTINGS,
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump({**plan, **parts}))
        return path

    return write


def skill(verb: str) -> dict[str, Any]:
    return {
        "name": verb,
        "train": f"data/{verb}.jsonl",
        "heldOut": {"uri": f"data/{verb}-test.jsonl", "grader": "contains"},
    }


def put(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


@pytest.fixture
def options(tiny_llama_dir: Path, tmp_path: Path, plan_file: Callable[..., Path]) -> Callable[..., Namespace]:
    """Returns the command's options; keywords replace parts of the plan."""

    def make(*, out: str = "out", sequence: bool = False, only: tuple[str, ...] = (), **parts: Any) -> Namespace:
        return Namespace(
            plan=plan_file(**parts), model=tiny_llama_dir, out=tmp_path / out, sequence=sequence, only=list(only)
        )

    return make
