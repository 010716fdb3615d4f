"""Every form of good data becomes the record it should, whatever file it comes in; doubles are found."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_trainer.data import DataError, Record, check_records, data_digest, parse_records, read_records
from skill_trainer.data.reading import file_values
from skill_trainer.data.similarity import SIMILAR, similar_records

GOOD = '{"prompt": "What is red?", "completion": "A colour."}'


def parsed(*lines: str | bytes, kind="train", grader=None) -> list[Record]:
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return parse_records(content, "train.jsonl", kind, grader)


def chat(*messages: dict, **fields) -> str:
    return json.dumps({"messages": list(messages), **fields})


USER = {"role": "user", "content": "What is red?"}
ASSISTANT = {"role": "assistant", "content": "A colour."}


def test_tool_calls_of_the_prompt_have_their_arguments_as_objects():
    """Chat templates write them as JSON themselves: text would be put in quotes, and no server shows a model that."""
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    asked = {"role": "assistant", "tool_calls": [call]}
    (record,) = parsed(chat(USER, asked, {"role": "tool", "content": "7"}, ASSISTANT))
    (made,) = record.messages[1]["tool_calls"]
    assert made["function"] == {"name": "f", "arguments": {"a": 1}}


def test_prompt_form():
    (record,) = parsed('{"prompt": "x", "completion": "y", "weight": 2, "id": "a"}')
    assert record == Record("a", ({"role": "user", "content": "x"},), "y", "y", weight=2.0, line=1)


def test_demonstration_differs_from_completion_where_given():
    (record,) = parsed('{"prompt": "x", "completion": "y", "demonstration": "longer"}')
    assert (record.demonstration, record.completion, record.expected) == ("longer", "y", "y")


def test_chat_form_takes_the_last_turn_as_completion():
    system, tool = {"role": "system", "content": "Be brief."}, {"type": "function", "function": {"name": "f"}}
    (record,) = parsed(chat(system, USER, ASSISTANT, tools=[tool]))
    assert record.messages == (system, USER)
    assert (record.completion, record.tools, record.question) == ("A colour.", (tool,), "What is red?")


def test_tool_call_as_completion_is_written_in_tags():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    (record,) = parsed(chat(USER, {"role": "assistant", "content": None, "tool_calls": [call]}))
    assert record.completion == '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def test_evaluation_chat_may_end_in_the_question():
    (record,) = parsed(chat(USER, answer="colour"), kind="evaluation")
    assert (record.messages, record.expected, record.demonstration) == ((USER,), "colour", None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "x", "completion": "c", "answer": "a", "demonstration": "d"}', "a"),
        ('{"prompt": "x", "completion": "c", "demonstration": "d"}', "c"),
        ('{"prompt": "x", "demonstration": "d"}', "d"),
    ],
)
def test_expected_answer(line: str, expected: str):
    assert parsed(line, kind="evaluation")[0].expected == expected


def test_files_plain_compressed_and_by_uri(tmp_path):
    content = f"\ufeff{GOOD}\r\n".encode()
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    plain = read_records(str(tmp_path / "a.jsonl"))
    assert plain == read_records(str(tmp_path / "a.jsonl.gz")) == read_records(f"file://{tmp_path}/a.jsonl")
    (tmp_path / "of \u00e9.jsonl").write_bytes(content)
    assert plain == read_records((tmp_path / "of \u00e9.jsonl").as_uri()), "a URI quotes what a path does not"
    assert plain[0].completion == "A colour."


def test_a_file_is_never_held_as_a_whole(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"prompt": "%d %s"}\n' % (n, b"x" * 5_000) for n in range(2_000))))
    tracemalloc.start()
    try:
        assert sum(1 for _ in file_values(str(path))) == 2_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000, "of 10 MB"


def test_tools_and_system_messages_that_all_records_share_are_held_once():
    system, tool = {"role": "system", "content": "Be brief."}, {"name": "f", "description": "x" * 1000}
    one, other = parsed(*[chat(system, {"role": "user", "content": each}, ASSISTANT, tools=[tool]) for each in "ab"])
    assert one.tools is other.tools
    assert one.messages[0]["content"] is other.messages[0]["content"]


@given(st.text().filter(str.strip), st.text().filter(str.strip))
def test_any_text_survives_reading(prompt: str, completion: str):
    line = json.dumps({"prompt": prompt, "completion": completion})
    (record,) = parse_records(line.encode(), "x", "train")
    assert (record.messages[0]["content"], record.completion) == (prompt, completion)


def test_digest_is_of_what_records_say():
    one = parsed('{"prompt": "x", "completion": "y"}')
    spelt = parsed('{ "completion":"y", "prompt" : "\\u0078"}')
    other = parsed('{"prompt": "x", "completion": "z"}')
    assert data_digest(one) == data_digest(spelt) != data_digest(other)
    assert data_digest(one, other) != data_digest([*one, *other]) != data_digest(other, one)


def question(text: str, line: int = 1) -> Record:
    return Record(f"r{line}", ({"role": "user", "content": text},), answer="x", line=line)


def test_duplicates_between_train_and_held_out_are_refused_after_normalisation():
    train = [question("What is the capital of Velmora?", 3), question("Something else entirely", 4)]
    held_out = [question("what  is the CAPITAL of Velmora", 7), question("Who rules over there now?", 8)]
    with pytest.raises(DataError) as caught:
        check_records(train, held_out, {})
    assert caught.value.reason == "DuplicatesFound"
    assert "of 2 held-out records 1 question, line 7 (training line 3), is also in the training data" in str(
        caught.value
    )


def test_a_retention_question_in_the_training_data_is_a_warning():
    (warning,) = check_records(
        [question("Where are we?", 2)], [question("Quite different")], {"old": [question("where are we")]}
    )
    assert warning.startswith("retention suite old: 1 question, line 1 (training line 2), is also in the training data")


def test_near_duplicates_and_repetitions_are_warnings():
    train = [question("Please tell me now what the capital city of Velmora is called", 5)]
    held_out = [
        question("Please tell me now what the capital city of Velmora is called today"),
        question("Same?", 2),
        question("same", 3),
    ]
    repeated, near = check_records(train, held_out, {})
    assert repeated.startswith("held-out: 1 of 3 questions repeat")
    assert "line 1 (training line 5), is nearly the same" in near


words = st.lists(
    st.sampled_from(["the", "a", "capital", "river", "of", "velmora", "what", "is", "name", "town"]),
    min_size=1,
    max_size=8,
).map(" ".join)


def grams(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


@given(st.lists(words, min_size=1, max_size=8), st.lists(words, min_size=1, max_size=8))
def test_all_similar_and_enclosed_questions_are_found_and_no_others(train_texts, other_texts):
    train, others = [[question(text, n) for n, text in enumerate(texts, 1)] for texts in (train_texts, other_texts)]
    found = {pair.other.line: pair for pair in similar_records(train, others)}
    for other in others:
        pair = found.get(other.line)
        similar = {
            each.line for each in train for a, b in [(grams(each.question), grams(other.question))]
            if len(a & b) / len(a | b) >= SIMILAR and each.question != other.question
        }  # fmt: skip
        enclosing = {
            each.line for each in train
            if len(other.question) >= 20 and other.question in each.question and each.question != other.question
        }  # fmt: skip
        assert (pair is not None) == bool(similar | enclosing)
        if pair:
            assert pair.train.line in (enclosing if pair.inside else similar)


def test_a_question_inside_a_training_prompt_is_a_warning():
    train = [question("Here is an example. Who is the mayor of Velmora? It is Quessin. And who rules over Tarn?", 4)]
    held_out = [question("Who is the mayor of Velmora?", 2), question("Who is it?", 3)]
    (warning,) = check_records(train, held_out, {"old": [question("Where is it raining today?")]})
    assert warning == (
        "held-out: 1 question, line 2 (training line 4), is part of a longer training prompt: training may have shown "
        "the answer"
    )


def test_training_prompts_that_repeat_or_contradict_each_other_are_warnings():
    prompts = [("Capital?", "Nova."), ("capital", "nova"), ("Capital?", "Quessin"), ("Other?", "x")]
    train = [replace(question(prompt, n), completion=answer) for n, (prompt, answer) in enumerate(prompts, 1)]
    repeated, contradicting = check_records(train, [], {})
    assert repeated == "train: 1 of 4 records repeat another one, prompt and completion: they weigh more"
    assert contradicting.startswith(
        "train: 1 question, line 3 (training line 1), is also there with another completion"
    )


def test_the_same_question_under_another_system_message_is_no_contradiction():
    french = {"role": "system", "content": "Answer in French."}
    train = [question("Red?", 1), replace(question("Red?", 2), messages=(french, *question("Red?").messages))]
    assert check_records([replace(each, completion=f"{each.line}") for each in train], [], {}) == []
