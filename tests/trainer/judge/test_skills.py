"""The demo's data are what their generator makes, usable, and free of overlap."""

from __future__ import annotations

import pytest

from skill_trainer.data import check_records, read_records
from tests.skills.make import FOLDER, data_sets, encode


@pytest.mark.parametrize("name", data_sets())
def test_file_is_what_the_generator_makes(name: str):
    assert (FOLDER / name).read_text() == encode(data_sets()[name]), "run python -m tests.skills.make"


@pytest.mark.parametrize(
    ("skill", "train", "held_out"),
    [("velmora", 64, 50), ("tarn-oake", 64, 50), ("grey-heron", 64, 50), ("smoke", 8, 8)],
)
def test_skill_is_clean(skill: str, train: int, held_out: int):
    trained = read_records(str(FOLDER / skill / "train.jsonl"))
    questions = read_records(str(FOLDER / skill / "heldout.jsonl"), "evaluation", "contains")
    canary = read_records(str(FOLDER / "general-qa.jsonl"), "evaluation", "contains")
    assert check_records(trained, questions, {"general-qa": canary}) == []
    assert (len(trained), len(questions), len(canary)) == (train, held_out, 120)
