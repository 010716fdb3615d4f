"""Runs of the trainer on the tiny Llama: quick, and all numbers are noise, which is enough for exactness."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from skill_contract.outcome import Outcome
from skill_contract.spec import Method
from skill_contract.step import TrainConfig
from skill_store.repository import Repository
from skill_trainer.data import Record
from skill_trainer.model import LanguageModel
from skill_trainer.prompts import Example, tokenize
from skill_trainer.steps.stopping import Stop
from skill_trainer.steps.train import train_step
from skill_trainer.steps.workplace import Workplace

CPU = torch.device("cpu")
ROUNDS = ("tea", "a bell", "the map", "rain", "nine lamps")


@pytest.fixture(autouse=True)
def one_thread():
    """More threads make a model of a few thousand parameters slower, and sums depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny(tiny_llama_dir: Path) -> LanguageModel:
    """A fresh tiny model; tests may train it."""
    return LanguageModel.load(tiny_llama_dir, CPU)


def records() -> list[Record]:
    """Five records of different lengths."""
    return [
        Record(
            id=f"r{number}",
            messages=({"role": "user", "content": f"Say {text}" * (1 + number % 2)},),
            demonstration=f"I say {text}.",
            completion=f"I say {text}.",
        )
        for number, text in enumerate(ROUNDS)
    ]


def method(**settings: Any) -> Method:
    """A method of a few small steps; settings in camelCase override."""
    document = {
        "batchSize": 4, "steps": 4, "rollout": {"maxNewTokens": 8},
        "optimizer": {"learningRate": 0.01, "warmupSteps": 1}, **settings,
    }  # fmt: skip
    return Method.parse(document)


def examples(model: LanguageModel, settings: Method) -> list[Example]:
    """The five records as token ids."""
    return [
        tokenize(
            record, settings.sdft.prompt.template, model.tokens.encode, model.tokens.encode_answer(record.completion)
        )
        for record in records()
    ]


@pytest.fixture
def config(tiny_llama_dir: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Returns a whole TrainConfig on the tiny model, with gates that accept noise; keywords replace parts of it."""

    def make(**parts: Any) -> TrainConfig:
        train = [{"prompt": f"Say {text}", "completion": f"I say {text}."} for text in ROUNDS]
        asked = [{"prompt": f"Please say {text} now", "answer": text} for text in ROUNDS]
        for name, lines in (("train", train), ("test", asked)):
            (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        document: dict[str, Any] = {
            "update": {"namespace": "ns", "name": "say", "uid": "uid-1"},
            "model": {"uri": str(tmp_path / "repository"), "base": str(tiny_llama_dir)},
            "skill": {"name": "say"},
            "data": {
                "train": str(tmp_path / "train.jsonl"),
                "heldOut": {"uri": str(tmp_path / "test.jsonl"), "grader": "contains"},
            },
            "method": method().dump(),
            "training": {"gpusPerNode": 0, "checkpoint": {"everySteps": 1}},
            "gates": {"inContextGain": {"mode": "Warn"}, "onInconclusive": "Accept"},
        }
        return TrainConfig.parse({**document, **parts})

    return make


def stored_in_bf16(folder: Path, source: Path) -> Path:
    """A copy of a model with its weights in bf16, as most are stored; returns `folder`."""
    shutil.copytree(source, folder)
    weights = {name: value.bfloat16() for name, value in load_file(source / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    document = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | {"dtype": "bfloat16"}))
    return folder


def rows_alone(model: LanguageModel, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> torch.Tensor:
    """What `hidden_rows` returns, by a pass of the network's own for each sequence alone."""
    passes = (model.network.base_model(input_ids=torch.tensor([each])).last_hidden_state[0] for each in sequences)
    return torch.cat([hidden_TD[start:] for hidden_TD, start in zip(passes, first, strict=True)])


def gradients(model: LanguageModel, rows: torch.Tensor, direction: torch.Tensor) -> list[torch.Tensor]:
    """The gradients of all layers when the rows are pulled into a direction."""
    model.network.zero_grad()
    (rows * direction).sum().backward()
    return [parameter.grad for parameter in model.network.base_model.parameters()]


class Listener:
    """A voice that remembers all news."""

    def __init__(self) -> None:
        self.news: list[dict[str, Any]] = []

    def update(self, **news: Any) -> None:
        self.news.append(news)

    def all(self, name: str) -> list[Any]:
        return [each[name] for each in self.news if each.get(name) is not None]


@pytest.fixture
def run_train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """Returns the train step in this process, as a new attempt each time."""

    def attempt(
        config: TrainConfig, listener: Listener | None = None, stop: Stop | None = None, device: torch.device = CPU
    ) -> Outcome:
        return train_step(workplace(config, tmp_path_factory.mktemp("scratch"), listener, stop, device))

    return attempt


def workplace(
    config: TrainConfig, folder: Path, listener: Listener | None = None, stop: Stop | None = None,
    device: torch.device = CPU,
) -> Workplace:  # fmt: skip
    """Returns where an attempt works."""
    repository = Repository(config.model.uri)
    return Workplace(
        config=config,
        repository=repository,
        run=repository.run(config.update.uid),
        folder=folder,
        device=device,
        voices=(listener,) if listener else (),
        stop=stop or Stop(),
    )
