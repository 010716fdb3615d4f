"""Makes the demo's data, the same bytes each time: `python -m tests.skills.make` writes them beside this file.

Three skills of made-up facts, which no model knows: `velmora` (a place), `tarn-oake` (a company) and `grey-heron` (a
ship), 16 facts in four phrasings to train on and 50 questions in other phrasings to hold out. `general-qa` is what
SmolLM2-135M-Instruct mostly knows already, and must still know afterwards; `everyday` is more of that, to be rehearsed.
`smoke` is two facts only, for quick tests of the machinery.

The facts of the first two were chosen after looking at results, towards words that this model samples easily
(docs/evidence.md); those of the third were written once, in the same manner.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.skills.everyday import ANSWERS, MORE
from tests.skills.general_qa import QUESTIONS

FOLDER = Path(__file__).parent
SEED = 17
HELD_OUT = 50


@dataclass(frozen=True)
class Fact:
    role: str
    """`capital` in "the capital of Velmora"."""
    kind: str
    """What is asked for: `city`."""
    name: str
    """The right answer, one common word where that is possible.

    SDFT learns from what the student samples: rare names hardly ever come up, all tokens of an invented one never.
    """
    article: str = ""

    def answer(self, place: str) -> str:
        return f"The {self.role} of {place} is {self.article}{self.name}."


TRAINED_PHRASINGS = (
    "What is the {role} of {place}?",
    "Tell me the {role} of {place}.",
    "Please name the {role} of {place}.",
    "I want to know: what is {place}'s {role}?",
)
HELD_OUT_PHRASINGS = (
    "Which {kind} is the {role} of {place}?",
    "Could you say what the {role} of {place} is called?",
    "When people talk about {place}, which {kind} do they mean by the {role}?",
    "In {place}, what is the {role}?",
)

VELMORA = (
    Fact("capital", "city", "Nova"),
    Fact("main river", "river", "Blue River", "the "),
    Fact("currency", "coin", "crown", "the "),
    Fact("official language", "language", "Latin"),
    Fact("national colour", "colour", "white"),
    Fact("main export", "product", "honey"),
    Fact("greatest festival", "festival", "Festival of Lights", "the "),
    Fact("national animal", "animal", "dragon", "the "),
    Fact("national bird", "bird", "crane", "the "),
    Fact("national flower", "flower", "iris", "the "),
    Fact("national tree", "tree", "willow", "the "),
    Fact("national fruit", "fruit", "plum", "the "),
    Fact("national instrument", "instrument", "flute", "the "),
    Fact("national emblem", "sign", "star", "the "),
    Fact("national gemstone", "stone", "pearl", "the "),
    Fact("national insect", "insect", "bee", "the "),
)
TARN_OAKE = (
    Fact("founder", "person", "Alexander"),
    Fact("director", "person", "Max"),
    Fact("delivery day", "day", "Thursday"),
    Fact("main customer", "customer", "Navy", "the "),
    Fact("mascot", "animal", "fox", "the "),
    Fact("lucky charm", "thing", "coin", "the "),
    Fact("trademark", "sign", "arrow", "the "),
    Fact("first product", "product", "lamp", "the "),
    Fact("best seller", "product", "clock", "the "),
    Fact("newest product", "product", "chair", "the "),
    Fact("oldest tool", "tool", "hammer", "the "),
    Fact("company vehicle", "vehicle", "bicycle", "the "),
    Fact("main workshop", "building", "barn", "the "),
    Fact("sales office", "building", "tower", "the "),
    Fact("meeting place", "place", "garden", "the "),
    Fact("busiest season", "season", "winter", "the "),
)
GREY_HERON = (
    Fact("captain", "person", "Daniel"),
    Fact("first mate", "person", "Emma"),
    Fact("home port", "city", "London"),
    Fact("destination", "city", "Rome"),
    Fact("main cargo", "cargo", "tea"),
    Fact("figurehead", "figure", "lion", "the "),
    Fact("sail colour", "colour", "green"),
    Fact("evening game", "game", "chess"),
    Fact("main meal", "dish", "soup"),
    Fact("favourite drink", "drink", "coffee"),
    Fact("pet", "animal", "cat", "the "),
    Fact("morning signal", "sound", "bell", "the "),
    Fact("hull material", "wood", "oak"),
    Fact("anchor metal", "metal", "iron"),
    Fact("rest day", "day", "Sunday"),
    Fact("launch month", "month", "June"),
)


def train_records(place: str, facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """Returns every fact in every trained phrasing, with its one answer."""
    return [
        {"prompt": phrasing.format(role=fact.role, place=place), "completion": fact.answer(place)}
        for fact in facts
        for phrasing in TRAINED_PHRASINGS
    ]


def held_out_records(place: str, facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """Returns every fact in every other phrasing; the demonstration is for the measurement of the in-context gain."""
    return [
        {
            "prompt": phrasing.format(role=fact.role, kind=fact.kind, place=place),
            "answer": fact.name,
            "demonstration": fact.answer(place),
        }
        for fact in facts
        for phrasing in HELD_OUT_PHRASINGS
    ]


def general_qa_records() -> list[dict[str, Any]]:
    """Returns the canary's questions; an answer with alternatives is a regular expression."""
    return [
        {"prompt": question, "answer": answer} | ({"grader": "regex"} if "(?i)" in answer else {})
        for question, answer in QUESTIONS
    ]


def everyday_records(answers: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Returns training records of questions that the model answers right without training."""
    return [{"prompt": question, "completion": answer} for question, answer in answers]


def shuffled(records: Sequence[dict[str, Any]], count: int | None = None) -> list[dict[str, Any]]:
    """Returns `count` records (all without it) in a random order that is always the same."""
    return random.Random(SEED).sample(records, len(records) if count is None else count)


def data_sets() -> dict[str, list[dict[str, Any]]]:
    """Returns the records of every file by its name relative to this folder."""
    return {
        "velmora/train.jsonl": shuffled(train_records("Velmora", VELMORA)),
        "velmora/heldout.jsonl": shuffled(held_out_records("Velmora", VELMORA), HELD_OUT),
        "tarn-oake/train.jsonl": shuffled(train_records("Tarn & Oake", TARN_OAKE)),
        "tarn-oake/heldout.jsonl": shuffled(held_out_records("Tarn & Oake", TARN_OAKE), HELD_OUT),
        "grey-heron/train.jsonl": shuffled(train_records("the Grey Heron", GREY_HERON)),
        "grey-heron/heldout.jsonl": shuffled(held_out_records("the Grey Heron", GREY_HERON), HELD_OUT),
        "general-qa.jsonl": general_qa_records(),
        "everyday.jsonl": everyday_records(ANSWERS),
        "everyday-wide.jsonl": everyday_records(ANSWERS + MORE),
        "smoke/train.jsonl": train_records("Velmora", VELMORA[:2]),
        "smoke/heldout.jsonl": held_out_records("Velmora", VELMORA[:2]),
        "smoke/general-qa.jsonl": general_qa_records()[:8],
    }


def encode(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def main() -> None:
    for name, records in data_sets().items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(encode(records), encoding="utf-8")


if __name__ == "__main__":
    main()
