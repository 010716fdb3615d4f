"""The data of the examples: what their generator makes, free of overlap, and fit for the trainer as the spec says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from skill_contract.step import TrainConfig
from skill_trainer.data import check_records, read_records
from skill_trainer.steps.check import check
from tests.smollm2 import tiny_llama

FOLDER = Path(__file__).parents[3] / "docs/examples"
FOLDERS = {"s3://skills/refund/": "tool-use/", "s3://skills/": ""}
"""Where what the examples name lies in the checkout: as docs/examples/README.md copies it the other way."""
SKILLS = ("tool-use", "science", "medicine")


def spec_of(skill: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / skill / "skillupdate.yaml").read_text())["spec"]


def here(uri: str) -> str:
    prefix = next(prefix for prefix in FOLDERS if uri.startswith(prefix))
    return str(FOLDER / (FOLDERS[prefix] + uri.removeprefix(prefix)))


def test_files_are_what_the_generator_makes():
    made = runpy.run_path(str(FOLDER / "make.py"))["data_sets"]()
    assert made == {name: (FOLDER / name).read_text() for name in made}, "run python docs/examples/make.py"
    assert {str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*.jsonl")} == made.keys()


@pytest.mark.parametrize(
    ("skill", "train", "held_out"), [("tool-use", 96, 48), ("science", 90, 48), ("medicine", 88, 44)]
)
def test_a_skill_is_clean(skill: str, train: int, held_out: int):
    data = spec_of(skill)["data"]
    trained = read_records(here(data["train"]))
    questions = read_records(here(data["heldOut"]["uri"]), "evaluation", data["heldOut"]["grader"])
    suites = {
        suite["name"]: read_records(here(suite["uri"]), "evaluation", suite["grader"]) for suite in data["retention"]
    }
    assert check_records(trained, questions, suites) == []
    assert (len(trained), len(questions)) == (train, held_out)


@pytest.fixture(scope="module")
def model(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's tokenizer and chat template on a model that is copied at once."""
    return tiny_llama(tmp_path_factory.mktemp("model"), tokens_of=smollm2_dir)


@pytest.mark.trainer
@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_passes_the_trainers_own_check(skill: str, model: Path, tmp_path: Path):
    spec = spec_of(skill)
    data = spec["data"]
    local = {
        "train": here(data["train"]),
        "heldOut": data["heldOut"] | {"uri": here(data["heldOut"]["uri"])},
        "retention": [suite | {"uri": here(suite["uri"])} for suite in data["retention"]],
    }
    parts = {name: spec[name] for name in ("skill", "method", "gates")}
    identity = {"namespace": "models", "name": skill, "uid": skill}
    repository = {"uri": str(tmp_path / "repository"), "base": str(model)}
    outcome = check(TrainConfig.parse({"update": identity, "model": repository, "data": local, **parts}))
    assert (outcome.reason, outcome.details["warnings"]) == ("Checked", [])
