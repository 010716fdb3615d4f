"""Suites are scored item by item and come back from storage as they were."""

from __future__ import annotations

import json

import pytest

from skill_trainer.data import Record, parse_records
from skill_trainer.evaluate import Suite, SuiteScores, score
from skill_trainer.steps.inputs import suite_to_store

TOOL = {"type": "function", "function": {"name": "f"}}


def record(name: str, **fields) -> Record:
    return Record(name, ({"role": "user", "content": f"What is {name}?"},), **fields)


PLACES = Suite(
    "places", (record("a", answer="Paris"), record("b", completion="Rome is it.", answer="Rome")), "contains"
)
NUMBERS = Suite("numbers", (record("c", answer="7", grader="number"), record("d", completion="x", tools=(TOOL,))))


def test_scores_item_by_item_with_the_records_grader_before_the_suites():
    asked = []

    def answer(records):
        asked.append([each.id for each in records])
        return ["In Paris.", "No idea", "It is 7", "It is x"]

    scores = score([PLACES, NUMBERS], answer)
    assert asked == [["a", "b", "c", "d"]], "one call, so that the model can batch"
    assert scores["places"] == SuiteScores(right=(True, False), texts=("In Paris.", "No idea"))
    assert scores["numbers"].right == (True, False), "exact is the default and wants all of it"
    assert scores["numbers"].score == 0.5


@pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"]])
def test_another_number_of_answers_than_questions_is_a_mistake(texts: list[str]):
    with pytest.raises(ValueError, match="2 questions, but"):
        score([PLACES], lambda _: texts)


def test_empty_and_equally_named_suites_are_mistakes():
    for suites in ([PLACES, PLACES], [Suite("none", ())]):
        with pytest.raises(ValueError, match="need different names and at least one record"):
            score(suites, lambda records: [""] * len(records))


def test_scores_survive_json():
    scores = SuiteScores(right=(True, False), texts=("é\u2028", ""))
    assert SuiteScores.parse_json(scores.dump_json()) == scores


def test_suite_survives_storage():
    for suite in (PLACES, NUMBERS):
        stored = Suite.decode(suite.name, suite.encode())
        assert stored.encode() == suite.encode()
        assert [(each.id, each.messages, each.expected, each.tools) for each in stored.records] == [
            (each.id, each.messages, each.expected, each.tools) for each in suite.records
        ]
        assert [each.grader for each in stored.records] == [each.grader or suite.grader for each in suite.records]


def test_stored_suite_scores_the_same():
    texts = ["Paris", "rome", "7.0", "x"]
    stored = [Suite.decode(suite.name, suite.encode()) for suite in (PLACES, NUMBERS)]
    assert score(stored, lambda _: texts) == score([PLACES, NUMBERS], lambda _: texts)


def test_a_conversation_with_tool_calls_survives_storage():
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    chat = [{"role": "user", "content": "Ask f"}, call, {"role": "tool", "content": "7"}]
    line = json.dumps({"messages": chat, "answer": "7"}).encode()
    suite = Suite("tools", tuple(parse_records(line, "test.jsonl", "evaluation")))
    assert Suite.decode("tools", suite.encode()).records[0].messages == suite.records[0].messages


def test_a_skill_that_was_taught_again_and_again_survives_storage():
    """Records without an id of their own are named by their line, so each generation has a `line-1`."""
    stored: dict[str, bytes] = {}
    for question in ("Who?", "What?", "Where?"):
        line = json.dumps({"prompt": question, "answer": "x"}).encode()
        held_out = Suite("skill", tuple(parse_records(line, "test.jsonl", "evaluation")))
        stored["skill"] = suite_to_store(stored, held_out)
    again = Suite.decode("skill", stored["skill"])
    assert [record.question for record in again.records] == ["Who?", "What?", "Where?"]
    assert again.records[-1].id == "line-1", "the newest keep their names"
