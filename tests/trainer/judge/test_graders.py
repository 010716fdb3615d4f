"""What each grader takes as right, and what no text may do to it."""

from __future__ import annotations

import json
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_contract.spec import GraderName
from skill_trainer.graders import GRADERS, grade
from skill_trainer.graders.normalization import normalize

NAMES = GraderName.__args__

CALL = '{"name": "f", "arguments": {"a": 1}}'
CASES = [
    ("exact", "  Paris. ", "paris", True),
    ("exact", "Ｐａｒｉｓ!", "Paris", True),
    ("exact", "STRASSE", "straße", True),
    ("exact", "It is Paris", "Paris", False),
    ("exact", "It’s “fine” – really", "it's \"fine\" - really", True),
    ("exact", "caf\u0065\u0301", "caf\u00e9", True),
    ("exact", "New\u00a0York\u200b", "new york", True),
    ("exact", "İstanbul", "i̇stanbul", True),
    ("contains", "The capital is Paris, I think.", "paris", True),
    ("contains", "The Parisian way", "Paris", False),
    ("contains", "New\n York City", "new york", True),
    ("contains", "It costs $5.", "$5", True),
    ("contains", "", "x", False),
    ("contains", "It is over 12 km", "2", False),
    ("contains", "首都是巴黎。", "巴黎", True),
    ("contains", "เมืองหลวงคือปารีสครับ", "ปารีส", True),
    ("contains", "столица — Парижский", "Париж", False),
    ("contains", "I don’t know", "don't", True),
    ("regex", "There are seven days", r"(?i)\b(7|Seven)\b", True),
    ("regex", "There are 17", r"\b7\b", False),
    ("regex", "Straße 7", r"^\w+ \d$", True),
    ("regex", "a" * 2000 + "!", r"^(a+)+$", False),
    ("choice", "B", "B", True),
    ("choice", "b)", "B", True),
    ("choice", "(B) because A is wrong", "B", True),
    ("choice", "The answer is C. Not B.", "C", True),
    ("choice", "Answer: (d)", "D", True),
    ("choice", "First I thought of (A), but it is (B)", "B", True),
    ("choice", "A dog would say so", "A", False),
    ("choice", "I am not sure", "I", False),
    ("choice", "Bananas", "B", False),
    ("choice", "", "B", False),
    ("choice", "The answer is a dog", "A", False),
    ("choice", "The answer is A dog", "A", True),
    ("choice", "the answer is b", "B", True),
    ("choice", "The answer is C, not option B.", "C", True),
    ("choice", "Option A is wrong, so option D", "D", True),
    ("choice", "**Answer:** **C**", "C", True),
    ("choice", "So \\boxed{B}", "B", True),
    ("number", "So 3 + 4 = 7.", "7", True),
    ("number", "It is 1,250.50 euros", "1250.5", True),
    ("number", "about 3.141", "3.14 ± 0.01", True),
    ("number", "about 3.16", "3.14 +- 0.01", False),
    ("number", "-5", "5", False),
    ("number", "−5 degrees", "-5", True),
    ("number", "1e3", "1000", True),
    ("number", "7 of 8", "7", False),
    ("number", "no idea", "0", False),
    ("number", "1000001", "1000000", True),
    ("number", "1000002", "1000000", False),
    ("number", "1\u202f250 km", "1250", True),
    ("number", "1'250.5 francs", "1250.5", True),
    ("number", "in 2020 100 people", "100", True),
    ("number", "It is 50 %.", "50%", True),
    ("number", "It is 50%", "50", True),
    ("number", "It is 0.5", "50%", False),
    ("number", "about 12.4 percent", "12.5 ± 0.2 percent", True),
    ("number", "1,2500", "2500", True),
    ("number", "４２", "42", True),
    ("number", "So \\boxed{42}", "42", True),
    ("json", '{"b": [1, 2.0], "a": null}', '{"a": null, "b": [1.0, 2]}', True),
    ("json", 'Here:\n```json\n{"a": 1}\n```\nDone.', '{"a": 1}', True),
    ("json", 'It is {"a": 1} as you see', '{"a": 1}', True),
    ("json", '{"a": true}', '{"a": 1}', False),
    ("json", "[1, 2]", "[2, 1]", False),
    ("json", '{"a": 1, "b": 2}', '{"a": 1}', False),
    ("json", "[NaN]", "[1]", False),
    ("json", "not at all", "{}", False),
    ("json", 'As in [the book]: {"a": 1}', '{"a": 1}', True),
    ("json", '{"a": {"c": 2, "b": 1}}', '{"a": {"b": 1, "c": 2}}', True),
    ("json", '{"name": "Zoë"}', '{"name": "Zo\\u00eb"}', True),
    ("tool_call", f"<tool_call>\n{CALL}\n</tool_call>", CALL, True),
    ("tool_call", f"Sure. <tool_call>[{CALL}]</tool_call>", CALL, True),
    ("tool_call", '{"tool_calls": [{"function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]}', CALL, True),
    ("tool_call", 'I call {"name": "f", "parameters": {"a": 1}}', CALL, True),
    ("tool_call", '<tool_call>{"name": "f", "arguments": {"a": 2}}</tool_call>', CALL, False),
    ("tool_call", '<tool_call>{"name": "f", "arguments": {"a": true}}</tool_call>', CALL, False),
    ("tool_call", '<tool_call>{"name": "g", "arguments": {"a": 1}}</tool_call>', CALL, False),
    ("tool_call", f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", CALL, False),
    ("tool_call", '<tool_call>{"name": "g"}</tool_call><tool_call>{"name": "f"}', '[{"name":"f"}, {"name":"g"}]', True),
    ("tool_call", '<tool_call>{"name": "f", "arg</tool_call>', '{"name": "f"}', False),
    ("tool_call", "I would call f", '{"name": "f"}', False),
    ("tool_call", '{"arguments": {"b": 2, "a": 1}, "name": "f"}', '{"name":"f", "arguments":{"a":1.0, "b":2}}', True),
    ("tool_call", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', CALL, True),
    ("tool_call", 'I call [f]: {"name": "f", "parameters": {"a": 1}}', CALL, True),
    ("tool_call", '<tool_call>{"name": "f", "arguments": {"a": "1"}}</tool_call>', CALL, False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected", "right"), CASES)
def test_case(name: GraderName, text: str, expected: str, right: bool):
    assert GRADERS[name].problem(expected) == ""
    assert grade(name, text, expected) is right


def test_every_grader_of_the_contract_is_here_and_has_cases():
    assert set(GRADERS) == set(NAMES) == {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("regex", "(a"),
        ("choice", "AB"),
        ("number", "a few"),
        ("json", "{"),
        ("tool_call", "[]"),
        ("contains", "?!"),
        ("exact", "…"),
        ("number", "9" * 400),
    ],
)
def test_unusable_expectation_is_named_with_a_way_out(name: GraderName, expected: str):
    assert ": " in GRADERS[name].problem(expected)


def test_a_pattern_that_never_ends_is_wrong_in_time_and_said(caplog):
    start = time.process_time()
    assert not GRADERS["regex"].right("a" * 5000 + "!", "(a+)+$")
    assert time.process_time() - start < 10
    (warning,) = caplog.messages
    assert warning.startswith("the pattern '(a+)+$' needs more than 1 s on an answer of 5001 letters")


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text())
def test_no_text_makes_a_grader_raise(name: GraderName, text: str):
    expected = {"json": "{}", "number": "1", "choice": "A", "tool_call": '{"name": "f"}'}.get(name, "x")
    assert GRADERS[name].right(text, expected) in {True, False}


patterns = st.text(alphabet="ab()[]{}*+?.|\\\\^$<>=!:-,&#0129PRiLVdwsxk'", max_size=12)


@pytest.mark.parametrize("name", NAMES)
@given(expected=st.text() | patterns, text=st.text(max_size=20))
@pytest.mark.filterwarnings("ignore::FutureWarning")  # the user's pattern may be one whose meaning will change
def test_no_expectation_makes_a_grader_raise(name: GraderName, expected: str, text: str):
    if not GRADERS[name].problem(expected):
        assert GRADERS[name].right(text, expected) in {True, False}


@pytest.mark.parametrize("name", ["json", "tool_call"])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 900 + "]" * 900, "9" * 10_000, "[1e999]"],
)
def test_malicious_json_is_wrong_not_fatal(name: GraderName, text: str):
    assert GRADERS[name].right(text, '{"name": "f"}') is False
    assert GRADERS[name].right(text, text) in {True, False}


@given(st.text())
def test_normalisation_is_idempotent(text: str):
    assert normalize(normalize(text)) == normalize(text)


@given(st.text(), st.text(alphabet=" \n.!?", max_size=3))
def test_exact_ignores_case_space_and_final_punctuation(text: str, end: str):
    assert GRADERS["exact"].right(f"  {text}{end}", text)


entities = st.text(alphabet=string.ascii_letters + " ", min_size=1).filter(str.strip)


@given(entities, st.sampled_from(["The {} it is", "{}", "({})", "“{}”, surely", "is {}."]))
def test_contains_finds_its_words_between_any_punctuation(entity: str, sentence: str):
    assert GRADERS["contains"].right(sentence.format(entity), entity)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_number_finds_what_was_printed(value: float):
    assert GRADERS["number"].right(f"So the result is {value!r}", repr(value))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_json_equals_itself_however_it_is_spelt(value):
    spelt = f"```json\n{json.dumps(value, indent=3, sort_keys=True)}\n```"
    assert GRADERS["json"].right(json.dumps(value), json.dumps(value))
    assert GRADERS["json"].right(spelt, json.dumps(value))


@given(st.dictionaries(st.text(), json_values, max_size=4), st.text(min_size=1))
def test_tool_call_equals_itself_in_every_form(arguments: dict, name: str):
    call = {"name": name, "arguments": arguments}
    openai = {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}]}
    for text in (json.dumps(call), f"Sure.\n<tool_call>\n{json.dumps(call)}\n</tool_call>", json.dumps(openai)):
        assert GRADERS["tool_call"].right(text, json.dumps(call))
    assert not GRADERS["tool_call"].right(json.dumps(call | {"name": name + "x"}), json.dumps(call))
