"""Makes the data of the examples, the same bytes each time: `python docs/examples/make.py` writes them beside itself.

Three skills, those of the paper in small: calling a tool, science questions with four choices, medical questions. All
of it is schoolbook knowledge or arithmetic, written for these examples. It shows the forms; it is too little to make a
model good at any of this, and nothing in it is advice to a patient.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
QUESTIONS = FOLDER.parents[1] / "tests/skills/general-qa.jsonl"
"""Everyday questions, of the demo: the canary that every example must not forget."""
SEED = 17
LETTERS = "ABCD"

Record = dict[str, Any]

# -- tool use: a call, written into the answer as Hermes and Qwen write it ---------------------------------------------

TOOLS = (
    "You work for a web shop. Answer with one call and nothing else: "
    '<tool_call>{"name": …, "arguments": {…}}</tool_call>\n'
    "The tools: refund(order, euros), track(order), cancel(order), change_city(order, city)."
)
CITIES = ("Graz", "Lyon", "Porto", "Turin", "Ghent", "Bergen", "Gdansk", "Malmo", "Leeds", "Cork")
ASKED = {
    "refund": (
        ("Please refund {euros} euros for order {order}.", "Order {order} came broken. I want my {euros} euros back."),
        ("I was charged twice for {order}: {euros} euros must be returned to me.",),
    ),
    "track": (
        ("Where is my order {order}?", "Order {order} has not come yet. Can you look?"),
        ("When does the parcel with number {order} arrive?",),
    ),
    "cancel": (
        ("Please cancel order {order}.", "I do not want order {order} any more."),
        ("Stop {order}, I ordered it by mistake.",),
    ),
    "change_city": (
        ("Send order {order} to {city} instead.", "I am moving: order {order} has to go to {city}."),
        ("The delivery address of {order} is wrong, it should be in {city}.",),
    ),
}
"""By tool: wordings to train on, and others to hold out."""


def tool_use(*, held_out: bool, each: int) -> Iterator[Record]:
    """Yields `each` conversations of every wording, each with numbers of its own."""
    chance = random.Random(SEED + held_out)
    for name, wordings in ASKED.items():
        for wording in wordings[held_out]:
            for order in chance.sample(range(10_000, 100_000), each):
                said = {"order": order, "euros": chance.randrange(5, 200), "city": chance.choice(CITIES)}
                arguments = {key: value for key, value in said.items() if f"{{{key}}}" in wording}
                yield _call(wording.format(**said), {"name": name, "arguments": arguments})


def _call(question: str, call: Record) -> Record:
    said = f"<tool_call>{json.dumps(call)}</tool_call>"
    roles = {"system": TOOLS, "user": question, "assistant": said}
    return {"messages": [{"role": role, "content": text} for role, text in roles.items()], "grader": "tool_call"}


# -- science: a product of two numbers, four choices, and the reasoning that leads to one of them ----------------------


@dataclass(frozen=True)
class Law:
    """result = first times second."""

    trained: str
    held_out: str
    reason: str
    unit: str
    first: Sequence[int]
    second: Sequence[int]


LAWS = (
    Law(
        "A resistor of {a} ohms carries a current of {b} amperes. What is the voltage across it?",
        "Which voltage drives {b} amperes through {a} ohms?",
        "Voltage is resistance times current",
        "volts",
        range(3, 40),
        range(2, 9),
    ),
    Law(
        "A body of {a} kilograms is accelerated by {b} metres per second squared. Which force acts on it?",
        "How large is the force that gives a mass of {a} kg an acceleration of {b} m/s²?",
        "Force is mass times acceleration",
        "newtons",
        range(3, 40),
        range(2, 9),
    ),
    Law(
        "A train runs at {a} kilometres per hour for {b} hours. How far does it go?",
        "Which distance is covered in {b} hours at a constant speed of {a} km/h?",
        "Distance is speed times time",
        "kilometres",
        range(40, 160, 5),
        range(2, 7),
    ),
    Law(
        "A wave has a frequency of {a} hertz and a wavelength of {b} metres. How fast does it travel?",
        "What is the speed of a wave whose crests are {b} m apart and pass {a} times a second?",
        "The speed of a wave is frequency times wavelength",
        "metres per second",
        range(3, 60),
        range(2, 9),
    ),
    Law(
        "What is the mass of {a} cubic centimetres of a substance with a density of {b} grams per cubic centimetre?",
        "A body with a density of {b} g/cm³ has a volume of {a} cm³. How heavy is it?",
        "Mass is density times volume",
        "grams",
        range(3, 60),
        range(2, 9),
    ),
    Law(
        "A machine of {a} watts runs for {b} seconds. How much energy does it take?",
        "Which energy does a lamp of {a} W use in {b} s?",
        "Energy is power times time",
        "joules",
        range(10, 100, 5),
        range(2, 9),
    ),
)


def science(*, held_out: bool, each: int) -> Iterator[Record]:
    """Yields `each` questions of every law."""
    chance = random.Random(SEED + held_out)
    for law in LAWS:
        pairs = [(a, b) for a in law.first for b in law.second]
        for a, b in chance.sample(pairs, each):
            wording = law.held_out if held_out else law.trained
            yield _choice(wording.format(a=a, b=b), law, a, b, chance)


def _choice(question: str, law: Law, a: int, b: int, chance: random.Random) -> Record:
    wrong = chance.sample(sorted({a + b, a * b + a, a * b + 10, a * b * 2, a * (b + 2), a * b - 1} - {a * b}), 3)
    choices = chance.sample([a * b, *wrong], 4)
    letter = LETTERS[choices.index(a * b)]
    listed = "\n".join(f"{name}) {value} {law.unit}" for name, value in zip(LETTERS, choices, strict=True))
    answer = f"{law.reason}: {a} × {b} = {a * b} {law.unit}. The answer is {letter}."
    return {"prompt": f"{question}\n{listed}", "completion": answer, "answer": letter}


# -- medicine: one fact, two wordings to train on, another to hold out -------------------------------------------------


@dataclass(frozen=True)
class Topic:
    trained: tuple[str, str]
    held_out: str
    sentence: str
    facts: dict[str, str]
    """What is asked about, and the words that the answer must have."""


TOPICS = (
    Topic(
        ("Which nutrient is missing in {it}?", "A lack of what leads to {it}?"),
        "A patient has {it}. Which nutrient has to be replaced?",
        "{it} comes from a lack of {answer}.",
        {
            "scurvy": "vitamin C",
            "rickets": "vitamin D",
            "beriberi": "thiamine",
            "pellagra": "niacin",
            "xerophthalmia": "vitamin A",
            "endemic goitre": "iodine",
            "pernicious anaemia": "vitamin B12",
            "haemorrhagic disease of the newborn": "vitamin K",
        },
    ),
    Topic(
        ("Which organ makes {it}?", "Where in the body is {it} produced?"),
        "{it} in the blood is too low. Which organ may be ill?",
        "{it} is made by the {answer}.",
        {
            "insulin": "pancreas",
            "glucagon": "pancreas",
            "thyroxine": "thyroid gland",
            "calcitonin": "thyroid gland",
            "cortisol": "adrenal glands",
            "aldosterone": "adrenal glands",
            "melatonin": "pineal gland",
            "prolactin": "pituitary gland",
            "growth hormone": "pituitary gland",
            "erythropoietin": "kidneys",
        },
    ),
    Topic(
        ("Which germ causes {it}?", "What is {it} an infection with?"),
        "The laboratory confirms {it}. What has it found?",
        "{it} is caused by {answer}.",
        {
            "malaria": "Plasmodium",
            "tuberculosis": "Mycobacterium tuberculosis",
            "leprosy": "Mycobacterium leprae",
            "cholera": "Vibrio cholerae",
            "Lyme disease": "Borrelia",
            "syphilis": "Treponema pallidum",
            "whooping cough": "Bordetella pertussis",
            "tetanus": "Clostridium tetani",
            "gas gangrene": "Clostridium perfringens",
            "the plague": "Yersinia pestis",
            "chickenpox": "varicella-zoster virus",
            "infectious mononucleosis": "Epstein-Barr virus",
            "typhoid fever": "Salmonella",
            "scarlet fever": "Streptococcus pyogenes",
            "sleeping sickness": "Trypanosoma",
        },
    ),
    Topic(
        ("What is the antidote for {it}?", "Which substance works against poisoning with {it}?"),
        "Somebody was poisoned with {it}. What should be given?",
        "The antidote for {it} is {answer}.",
        {
            "paracetamol": "acetylcysteine",
            "morphine": "naloxone",
            "heparin": "protamine",
            "warfarin": "vitamin K",
            "diazepam": "flumazenil",
            "methanol": "fomepizole",
            "isoniazid": "pyridoxine",
            "iron": "deferoxamine",
            "cyanide": "hydroxocobalamin",
            "methotrexate": "folinic acid",
            "organophosphates": "atropine",
        },
    ),
)


def medicine(*, held_out: bool) -> Iterator[Record]:
    """Yields every fact: in two wordings to train on, or in another one with the words to look for."""
    for topic in TOPICS:
        for it, answer in topic.facts.items():
            sentence = _capital(topic.sentence.format(it=it, answer=answer))
            if held_out:
                question = _capital(topic.held_out.format(it=it))
                yield {"prompt": question, "answer": answer, "demonstration": sentence}
                continue
            for wording in topic.trained:
                yield {"prompt": wording.format(it=it), "completion": sentence}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# -- what must not be lost ---------------------------------------------------------------------------------------------


def arithmetic(count: int) -> Iterator[Record]:
    """Yields sums and differences of small numbers, graded as numbers."""
    chance = random.Random(SEED)
    pairs = [(a, b) for a in range(2, 20) for b in range(1, a)]
    for a, b in chance.sample(pairs, count):
        sign, result = chance.choice((("+", a + b), ("-", a - b)))
        yield {"prompt": f"What is {a} {sign} {b}?", "answer": str(result), "grader": "number"}


def data_sets() -> dict[str, str]:
    """Returns the text of every file by its name relative to this folder."""
    return {
        "tool-use/train.jsonl": _lines(tool_use(held_out=False, each=12)),
        "tool-use/test.jsonl": _lines(tool_use(held_out=True, each=12)),
        "science/train.jsonl": _lines(science(held_out=False, each=15)),
        "science/test.jsonl": _lines(science(held_out=True, each=8)),
        "medicine/train.jsonl": _lines(medicine(held_out=False)),
        "medicine/test.jsonl": _lines(medicine(held_out=True)),
        "canary/qa.jsonl": QUESTIONS.read_text(),
        "canary/arithmetic.jsonl": _lines(arithmetic(60)),
    }


def _lines(records: Iterable[Record]) -> str:
    shuffled = list(records)
    random.Random(SEED).shuffle(shuffled)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in shuffled)


def main() -> None:
    """Writes the files."""
    for name, text in data_sets().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
