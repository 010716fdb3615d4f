"""What is to be told apart: SmolLM2-135M, and what becomes of it when it is taught a skill, by one seed or another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tests.smollm2 import smollm2

from skill_contract.manifest import GoldenSet
from skill_contract.spec import Method
from skill_trainer.curriculum import Curriculum
from skill_trainer.data import Record, read_records
from skill_trainer.device import prepare
from skill_trainer.evaluate import Suite, score
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel, silence
from skill_trainer.objective import make_objective
from skill_trainer.prompts import student_messages
from skill_trainer.rollout import greedy
from skill_trainer.steps.examples import make_examples
from skill_trainer.steps.golden import golden_set
from skill_trainer.steps.measure import Measurement

SKILLS = Path(__file__).parents[2] / "tests" / "skills"
SKILL = SKILLS / "velmora"
CPU = torch.device("cpu")
TOKENS = 20
QUESTIONS = 12
"""Of the skill, and as many others, from which the golden prompts are chosen."""


@dataclass(frozen=True)
class Version:
    """A version as the trainer would publish it."""

    seed: int
    folder: Path
    golden: GoldenSet


def taught(seed: int, before: Measurement, folder: Path) -> Version:
    """Trains six steps from SmolLM2, with the order of the data by the seed, and records the golden prompts."""
    method = Method.parse({
        "type": "SFT", "batchSize": 8, "steps": 6, "seed": seed, "rollout": {"maxNewTokens": TOKENS},
        "optimizer": {"learningRate": 5e-5, "warmupSteps": 1},
    })  # fmt: skip
    model = load(smollm2())
    objective, optimizer = make_objective(method, model), make_optimizer(model)
    examples = make_examples(tuple(read_records(str(SKILL / "train.jsonl"), "train")), method, model.tokens)
    train(
        model, objective, optimizer, Curriculum(examples), method, done=0, save_every=6, save=lambda _: None,
        stop=lambda: False, on_step=lambda _: None,
    )  # fmt: skip
    golden = golden_set(model, suites(), before, measure(model), max_new_tokens=TOKENS, between=lambda: None)
    model.save(folder, smollm2())
    return Version(seed, folder, golden)


def load(folder: Path) -> LanguageModel:
    silence()
    prepare()
    return LanguageModel.load(folder, CPU)


def measure(model: LanguageModel) -> Measurement:
    """Returns what a model answers to the questions from which golden prompts are chosen."""

    def answer(records: list[Record]) -> list[str]:
        prompts = [model.tokens.encode(student_messages(record)) for record in records]
        return [model.tokens.decode(each.tokens) for each in greedy(model, prompts, max_new_tokens=TOKENS)]

    return Measurement(seconds=0, scores=score(suites(), answer))


def suites() -> list[Suite]:
    paths = {"velmora": SKILL / "heldout.jsonl", "general-qa": SKILLS / "general-qa.jsonl"}
    return [
        Suite(name, tuple(islice(read_records(str(path), "evaluation"), QUESTIONS)), "contains")
        for name, path in paths.items()
    ]
