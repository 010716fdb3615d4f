"""What the teacher reads, template by template, and the refusal of what does not fit."""

from __future__ import annotations

import pickle
import sys

import pytest

from skill_contract.spec import Demonstration, PromptTemplate
from skill_trainer.data import Record
from skill_trainer.errors import ConfigInvalid, PromptTooLong
from skill_trainer.prompts import (
    AGAIN,
    require_fit,
    shown_demonstrations,
    student_messages,
    teacher_messages,
    template_digest,
    tokenize,
)
from skill_trainer.steps.examples import make_examples
from tests.trainer.core import conftest
from tests.trainer.core.conftest import method

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Capital of Velmora?"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find", "arguments": {}}}]}
RESULT = {"role": "tool", "content": "Stonebridge"}
ANSWER = {"role": "assistant", "content": "Stonebridge."}
OWN = "{question} So: {demonstration}"


def record(*messages):
    return Record(id="r", messages=messages, demonstration="Stonebridge.")


def test_a_token_that_is_kept_takes_four_bytes():
    """Of all records, in each process: a number of Python's takes 28, and 8 more where a list has it."""
    made = tokenize(record(QUESTION), PromptTemplate.DEFAULT, lambda *_: list(range(100_000, 101_000)), range(1000))
    for tokens in (made.student, made.teacher, made.target):
        assert len(tokens) == 1000
        assert sys.getsizeof(tokens) < 4500
    assert list(made.student) == [*range(100_000, 101_000)]
    assert pickle.loads(pickle.dumps(made)) == made, "it goes from one process to another"


def test_student_reads_the_prompt_alone():
    assert student_messages(record(SYSTEM, QUESTION)) == [SYSTEM, QUESTION]


def test_default_shows_the_demonstration_as_the_turn_before():
    assert teacher_messages(record(SYSTEM, QUESTION), PromptTemplate.DEFAULT) == [SYSTEM, QUESTION, ANSWER, QUESTION]


def test_default_asks_anew_after_a_tool_result():
    messages = teacher_messages(record(QUESTION, CALL, RESULT), PromptTemplate.DEFAULT)
    assert messages == [QUESTION, CALL, RESULT, ANSWER, {"role": "user", "content": AGAIN}]


def test_paper_wording_stands_in_the_last_user_turn():
    messages = teacher_messages(record(SYSTEM, QUESTION), PromptTemplate.PAPER)
    assert messages == [
        SYSTEM,
        {
            "role": "user",
            "content": "\nCapital of Velmora?\n\nThis is an example for a response to the question:\nStonebridge.\n\n"
            "Now answer with a response of your own, including the thinking process.\n",
        },
    ]


def test_paper_adds_a_user_turn_after_a_tool_result():
    *kept, added = teacher_messages(record(QUESTION, CALL, RESULT), PromptTemplate.PAPER)
    assert kept == [QUESTION, CALL, RESULT]
    assert added["role"] == "user"
    assert "to the question:\nStonebridge.\n" in added["content"]


def test_own_words_stand_where_the_papers_do():
    """Braces of theirs and of the data are text: no record's words are looked for in another's."""
    text = 'As JSON: {"like": "{demonstration}"}. {question} {other}'
    braces = Record(id="r", messages=({"role": "user", "content": "{demonstration}?"},), demonstration="{question}!")
    (turn,) = teacher_messages(braces, PromptTemplate.OWN, text=text)
    assert turn == {"role": "user", "content": 'As JSON: {"like": "{question}!"}. {demonstration}? {other}'}
    *kept, added = teacher_messages(record(QUESTION, CALL, RESULT), PromptTemplate.OWN, text=OWN)
    assert kept == [QUESTION, CALL, RESULT]
    assert added == {"role": "user", "content": " So: Stonebridge."}


def test_own_words_reach_the_teacher_alone(tiny):
    plain = method()
    own = method(sdft={"prompt": {"template": "Own", "text": OWN}})
    made = [make_examples(conftest.records(), each, tiny.tokens) for each in (plain, own)]
    assert [each.student for each in made[0]] == [each.student for each in made[1]]
    read = tiny.tokens.tokenizer.decode(made[1][0].teacher)
    assert read == "<|im_start|>user\nSay tea So: I say tea.<|im_end|>\n<|im_start|>assistant\n"


def test_braces_in_data_are_text():
    braces = Record(id="r", messages=({"role": "user", "content": "{question} {x}"},), demonstration='{"a": {}}')
    (turn,) = teacher_messages(braces, PromptTemplate.PAPER)
    assert "{question} {x}" in turn["content"]
    assert '{"a": {}}' in turn["content"]


@pytest.mark.parametrize("template", list(PromptTemplate))
def test_another_demonstration_can_be_shown(template):
    messages = teacher_messages(record(QUESTION), template, "Quessin.", text=OWN if template == "Own" else "")
    assert any("Quessin." in message["content"] for message in messages)
    assert not any("Stonebridge" in message["content"] for message in messages)


def demonstrated(*texts):
    return [Record(id=str(place), messages=(QUESTION,), demonstration=text) for place, text in enumerate(texts)]


@pytest.mark.parametrize("texts", ["abcdefgh", "aaaabbbbccccddd", "aabb", "aaabcd"])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_shows_everybody_words_of_somebody_else(texts, seed):
    shown = shown_demonstrations(demonstrated(*texts), Demonstration.SHUFFLED, seed)
    assert sorted(shown) == sorted(texts)
    assert all(one != other for one, other in zip(shown, texts, strict=True))
    assert shown == shown_demonstrations(demonstrated(*texts), Demonstration.SHUFFLED, seed)


def test_shuffled_depends_on_the_seed():
    records = demonstrated(*"abcdefgh")
    assert len({tuple(shown_demonstrations(records, Demonstration.SHUFFLED, seed)) for seed in range(5)}) > 1


def test_what_cannot_be_shuffled_is_refused():
    with pytest.raises(ConfigInvalid, match=r"Shuffled: 3 of 5 records have the same demonstration"):
        shown_demonstrations(demonstrated(*"aaabc"), Demonstration.SHUFFLED, 1)


@pytest.mark.parametrize("choice", Demonstration)
def test_where_nothing_is_rehearsed_nothing_is_shown(choice):
    assert shown_demonstrations([], choice, 1) == []


def test_own_and_empty_demonstrations():
    assert shown_demonstrations(demonstrated("a", "b"), Demonstration.OWN, 1) == ["a", "b"]
    assert shown_demonstrations(demonstrated("a", "b"), Demonstration.EMPTY, 1) == ["", ""]


def test_templates_have_different_digests():
    texts = {PromptTemplate.OWN: (OWN, OWN + " Be brief.")}
    digests = {template_digest(template, text) for template in PromptTemplate for text in texts.get(template, ("",))}
    assert len(digests) == len(PromptTemplate) + 1
    assert all(len(digest) == len("sha256:") + 64 for digest in digests)


def test_what_fits_exactly_passes():
    require_fit([("a", 90)], context=100, max_new_tokens=10)


def test_what_does_not_fit_is_refused_with_all_numbers():
    prompts = [("record 'a'", 91), ("record 'b'", 95), ("record 'c'", 90)]
    with pytest.raises(PromptTooLong) as caught:
        require_fit(prompts, context=100, max_new_tokens=10)
    message = caught.value.message
    assert "record 'b' has 95 tokens; with 10 new ones that is 105" in message
    assert "context is 100 (1 more are too long, too)" in message
    assert "method.rollout.maxNewTokens" in message
