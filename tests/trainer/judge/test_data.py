"""Every kind of bad data is refused with a message that says where, what and what to do."""

from __future__ import annotations

import contextlib
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_trainer.data import DataError, Record, check_records, data_digest, parse_records, read_records
from skill_trainer.data.duplicates import SIMILAR, near_duplicates

GOOD = '{"prompt": "What is red?", "completion": "A colour."}'


def parsed(*lines: str | bytes, kind="train", grader=None) -> list[Record]:
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return parse_records(content, "train.jsonl", kind, grader)


def chat(*messages: dict, **fields) -> str:
    return json.dumps({"messages": list(messages), **fields})


USER = {"role": "user", "content": "What is red?"}
ASSISTANT = {"role": "assistant", "content": "A colour."}

BAD_TRAIN = {
    "not JSON": ('{"prompt": "x", ', "(line)", "not JSON"),
    "two objects in a line": (GOOD + GOOD, "(line)", "not JSON"),
    "not UTF-8": (b'{"prompt": "caf\xe9", "completion": "x"}', "(line)", "byte 16 is 0xe9"),
    "empty line": ("  ", "(line)", "is empty: remove it"),
    "a list": ('["x", "y"]', "(line)", "is a list"),
    "a text": ('"prompt"', "(line)", "is text"),
    "null": ("null", "(line)", "is null"),
    "nested too deeply": ('{"prompt": ' + "[" * 200_000 + "]" * 200_000 + "}", "(line)", "nested too deeply"),
    "field twice": ('{"prompt": "a", "prompt": "b", "completion": "c"}', "prompt", "stands twice"),
    "misspelt field": ('{"prompt": "x", "completon": "y"}', "completon", "did you mean `completion`?"),
    "unknown field": ('{"prompt": "x", "completion": "y", "zzz": 1}', "zzz", "known are answer, completion"),
    "neither form": ('{"completion": "y"}', "prompt", "is missing"),
    "both forms": (chat(USER, ASSISTANT, prompt="x"), "prompt", "stands beside `messages`"),
    "no completion": ('{"prompt": "x"}', "completion", "add the demonstration"),
    "number as prompt": ('{"prompt": 3, "completion": "y"}', "prompt", "must be text in quotes, is a number (3)"),
    "null as completion": ('{"prompt": "x", "completion": ""}', "completion", "is empty"),
    "blank prompt": ('{"prompt": " \\n", "completion": "y"}', "prompt", "is empty"),
    "blank demonstration": ('{"prompt": "x", "completion": "y", "demonstration": ""}', "demonstration", "is empty"),
    "half a surrogate": ('{"prompt": "\\ud800", "completion": "y"}', "prompt", "surrogate"),
    "half a surrogate as a field": ('{"prompt": "x", "completion": "y", "\\ud800": 1}', "(line)", "surrogate"),
    "half a surrogate in a tool": (chat(USER, ASSISTANT, tools=[{"x": "\ud800"}]), "tools.0", "surrogate"),
    "NaN in a tool": ('{"prompt": "x", "completion": "y", "tools": [{"x": NaN}]}', "tools.0", "not finite"),
    "half a surrogate in an argument": (
        chat(USER, ASSISTANT | {"tool_calls": [{"function": {"name": "f", "arguments": {"x": "\ud800"}}}]}),
        "messages.1.tool_calls.0.function.arguments",
        "surrogate",
    ),
    "endless number": ('{"prompt": "x", "weight": ' + "9" * 5000 + "}", "(line)", "number that is too long"),
    "weight NaN": ('{"prompt": "x", "completion": "y", "weight": NaN}', "weight", "above 0, is nan"),
    "weight infinite": ('{"prompt": "x", "completion": "y", "weight": Infinity}', "weight", "above 0, is inf"),
    "weight zero": ('{"prompt": "x", "completion": "y", "weight": 0}', "weight", "above 0, is 0"),
    "weight as text": ('{"prompt": "x", "completion": "y", "weight": "2"}', "weight", "must be a number above 0"),
    "weight true": ('{"prompt": "x", "completion": "y", "weight": true}', "weight", "must be a number above 0"),
    "id a number": ('{"prompt": "x", "completion": "y", "id": 7}', "id", "must be text in quotes"),
    "unknown grader": ('{"prompt": "x", "completion": "y", "grader": "fuzzy"}', "grader", "must be one of 'exact'"),
    "tools an object": (chat(USER, ASSISTANT, tools={"name": "x"}), "tools", "must be a list, is an object"),
    "messages a text": ('{"messages": "hello"}', "messages", "must be a list, is text"),
    "no messages": ('{"messages": []}', "messages", "is empty"),
    "message a text": ('{"messages": ["hello"]}', "messages.0", "must be an object, is text"),
    "last not assistant": (chat(USER, ASSISTANT, USER), "completion", "ends in a message of the user"),
    "only an assistant": (chat(ASSISTANT), "messages", "no user (or tool) message"),
    "two assistants": (chat(USER, ASSISTANT, ASSISTANT), "messages", "no user (or tool) message"),
    "unknown role": (chat({"role": "human", "content": "x"}, ASSISTANT), "messages.0.role", "is 'human'"),
    "message without content": (chat({"role": "user"}, ASSISTANT), "messages.0.content", "is missing"),
    "blank content": (chat({"role": "user", "content": ""}, ASSISTANT), "messages.0.content", "is empty"),
    "content in parts": (chat({"role": "user", "content": []}, ASSISTANT), "messages.0.content", "must be text"),
    "unknown field of a message": (chat(USER | {"mood": "x"}, ASSISTANT), "messages.0.mood", "unknown field"),
    "assistant without content": (chat(USER, {"role": "assistant"}), "messages", "without content"),
    "broken tool arguments in the prompt": (
        chat(USER, ASSISTANT | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, USER, ASSISTANT),
        "messages.tool_calls.function.arguments",
        "must be an object",
    ),
    "broken tool arguments": (
        chat(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        "messages.tool_calls.function.arguments",
        "must be an object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_TRAIN)
def test_bad_record_is_named_with_its_place_reason_and_way_out(kind: str):
    line, field, reason = BAD_TRAIN[kind]
    with pytest.raises(DataError) as caught:
        parsed(GOOD, line, '{"prompt": "and another", "completion": "good one"}')
    message = caught.value.message
    assert caught.value.reason == "DataInvalid"
    assert message.splitlines()[0] == "train.jsonl: 1 of 3 records cannot be used"
    assert message.splitlines()[1].startswith(f"train.jsonl, line 2, {field}: "), message
    assert reason in message
    message.encode()  # whatever stands in the data, the message can be sent


BAD_EVALUATION = {
    "nothing to grade by": ('{"prompt": "x"}', None, "answer", "is missing"),
    "invalid regex": ('{"prompt": "x", "answer": "(", "grader": "regex"}', None, "answer", "regular expression"),
    "invalid regex for the suite": ('{"prompt": "x", "answer": "("}', "regex", "answer", "regular expression"),
    "not a number": ('{"prompt": "x", "answer": "many"}', "number", "answer", "is not a number ('many')"),
    "not a letter": ('{"prompt": "x", "answer": "Paris"}', "choice", "answer", "is not one letter"),
    "not JSON": ('{"prompt": "x", "answer": "{a: 1}"}', "json", "answer", "is not JSON"),
    "JSON with NaN": ('{"prompt": "x", "answer": "[NaN]"}', "json", "answer", "NaN is not JSON"),
    "not a tool call": ('{"prompt": "x", "completion": "call it"}', "tool_call", "completion", "is not a tool call"),
    "only punctuation": ('{"prompt": "x", "answer": "..."}', "contains", "answer", "no letter or digit"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_EVALUATION)
def test_bad_evaluation_record(kind: str):
    line, grader, field, reason = BAD_EVALUATION[kind]
    with pytest.raises(DataError, match=r"1 of 1 records") as caught:
        parsed(line, kind="evaluation", grader=grader)
    assert f"line 1, {field}: " in caught.value.message
    assert reason in caught.value.message


def test_tool_calls_of_the_prompt_have_their_arguments_as_objects():
    """Chat templates write them as JSON themselves: text would be put in quotes, and no server shows a model that."""
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    asked = {"role": "assistant", "tool_calls": [call]}
    (record,) = parsed(chat(USER, asked, {"role": "tool", "content": "7"}, ASSISTANT))
    (made,) = record.messages[1]["tool_calls"]
    assert made["function"] == {"name": "f", "arguments": {"a": 1}}


def test_all_bad_records_are_counted_and_ten_are_shown():
    with pytest.raises(DataError) as caught:
        parsed(GOOD, *["{}"] * 13)
    lines = caught.value.message.splitlines()
    assert lines[0] == "train.jsonl: 13 of 14 records cannot be used"
    assert [line.split(",")[1].strip() for line in lines[1:-1]] == [f"line {number}" for number in range(2, 12)]
    assert lines[-1] == "and 3 more"


def test_repeated_id_names_both_lines():
    with pytest.raises(DataError, match=r"line 2, id: 'a' is line 1's"):
        parsed('{"id": "a", "prompt": "x", "completion": "y"}', '{"id": "a", "prompt": "z", "completion": "y"}')


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


@pytest.mark.parametrize(
    ("name", "content", "reason", "words"),
    [
        ("a.jsonl", b"", "DataInvalid", "the file is empty"),
        ("a.json", b"{}", "DataInvalid", "must end in .jsonl"),
        ("a.jsonl.gz", b"plain", "DataInvalid", "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b"x" * 99)[:-9], "DataInvalid", "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b"x" * 10_001), "DataInvalid", "unpacks to more than 0.0 GB: split"),
        ("a.jsonl", None, "DataMissing", "no such file"),
    ],
)
def test_bad_file(tmp_path, monkeypatch, name: str, content: bytes | None, reason: str, words: str):
    monkeypatch.setattr("skill_trainer.data.reading.MAX_BYTES", 10_000)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_records(str(tmp_path / name))
    assert caught.value.reason == reason
    assert str(tmp_path / name) in caught.value.message


@given(st.text().filter(str.strip), st.text().filter(str.strip))
def test_any_text_survives_reading(prompt: str, completion: str):
    line = json.dumps({"prompt": prompt, "completion": completion})
    (record,) = parse_records(line.encode(), "x", "train")
    assert (record.messages[0]["content"], record.completion) == (prompt, completion)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_a_data_error(content: bytes):
    with contextlib.suppress(DataError):
        assert parse_records(content, "x", "train")


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


@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6))
def test_prefix_filter_misses_no_near_duplicate(train_texts, other_texts):
    train, others = [[question(text, n) for n, text in enumerate(texts, 1)] for texts in (train_texts, other_texts)]
    found = {pair.other.line: pair.similarity for pair in near_duplicates(train, others)}

    def grams(text: str) -> set[str]:
        return {text[i : i + 5] for i in range(max(1, len(text) - 4))}

    for other in others:
        scores = [
            len(a & b) / len(a | b) for a in [grams(each.question) for each in train] for b in [grams(other.question)]
        ]
        if other.question in train_texts or max(scores) < SIMILAR:
            assert found.get(other.line, 1.0) >= SIMILAR
        else:
            assert found[other.line] == pytest.approx(max(scores))
