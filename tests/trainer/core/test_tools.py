"""A skill with tools from the file to the stored suite: what the models read of them, and what no template may drop."""

# ruff: noqa: E501 - templates are one line

from __future__ import annotations

import json
import shutil

import pytest

from skill_contract.manifest import GoldenSet, ToolCall
from skill_contract.spec import PromptTemplate
from skill_store.repository import Repository
from skill_trainer.data import DataError, Record, parse_records
from skill_trainer.evaluate import Suite, score
from skill_trainer.model import ChatTokenizer, LanguageModel
from skill_trainer.prompts import AGAIN, student_messages, teacher_messages
from skill_trainer.rollout import greedy
from skill_trainer.steps.chats import require_shown
from skill_trainer.steps.check import check
from skill_trainer.steps.golden import calls_of, tells
from tests.trainer.core.conftest import CPU, method

TOOLS = "{% if tools %}{{ '<|im_start|>tools\\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>' }}{% endif %}"
TURN = "{{ '<|im_start|>' + message.role + '\\n' + message.content }}"
CALLS = "{% for call in message.tool_calls or [] %}{{ '<tool_call>\\n' + (call.function | tojson) + '\\n</tool_call>' }}{% endfor %}"
LOOP = "{% for message in messages %}", "{{ '<|im_end|>\\n' }}{% endfor %}"
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
TEMPLATE = TOOLS + LOOP[0] + TURN + CALLS + LOOP[1] + OPEN

OWN = {**dict.fromkeys(PromptTemplate, ""), PromptTemplate.OWN: "{question} So: {demonstration}"}
FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]},
    },
}
USER = {"role": "user", "content": "Capital?"}


def call(of: str) -> dict:
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"of": of}}}],
    }


RESULT = {"role": "tool", "content": "Nova"}
ANSWER = {"role": "assistant", "content": "It is Nova."}


def record(*messages: dict) -> Record:
    (found,) = parse_records(json.dumps({"messages": messages, "tools": [FIND]}).encode(), "x", "train")
    return found


@pytest.fixture
def folder(tiny_llama_dir, tmp_path):
    """The tiny model with a template that knows tools."""
    base = shutil.copytree(tiny_llama_dir, tmp_path / "with-tools")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    return base


def text(tokens: ChatTokenizer, messages: list[dict], one: Record) -> str:
    return tokens.tokenizer.decode(tokens.encode(messages, one.tools))


@pytest.mark.parametrize("template", list(PromptTemplate))
def test_student_and_teacher_read_the_tools_and_all_that_was_said_with_them(folder, template):
    tokens, one = ChatTokenizer.load(folder), record(USER, call("Velmora"), RESULT, ANSWER)
    student, teacher = (
        text(tokens, each(one), one)
        for each in (student_messages, lambda r: teacher_messages(r, template, text=OWN[template]))
    )
    for prompt in (student, teacher):
        assert json.dumps(FIND) in prompt
        assert '<tool_call>\n{"name": "find", "arguments": {"of": "Velmora"}}\n</tool_call>' in prompt
        assert "<|im_start|>tool\nNova<|im_end|>" in prompt
        assert prompt.endswith("<|im_start|>assistant\n")
    assert "It is Nova." not in student
    before, after = teacher.split("<|im_start|>tool\nNova<|im_end|>\n")
    assert "It is Nova." in after
    assert "It is Nova." not in before
    assert after.count("<|im_start|>user\n") == 1, "the demonstration cannot be asked for by saying the result twice"
    if template is PromptTemplate.DEFAULT:
        assert after.startswith("<|im_start|>assistant\nIt is Nova.<|im_end|>\n<|im_start|>user\n" + AGAIN)


def test_a_demonstrated_call_is_what_the_template_would_have_written(folder):
    """So the teacher shows the very form that this model was trained with, and the student copies nothing foreign."""
    tokens, one = ChatTokenizer.load(folder), record(USER, call("Velmora"))
    assert text(tokens, teacher_messages(one, PromptTemplate.DEFAULT), one).count("<tool_call>") == 1
    require_shown("r", one, tokens.render)


def test_tools_in_a_system_message_are_the_users_own_business(tiny_llama_dir):
    """Of a model whose template knows no tools: the way out that the refusal names."""
    messages = [{"role": "system", "content": "Call find."}, USER, call("Velmora")]
    (one,) = parse_records(json.dumps({"messages": messages}).encode(), "x", "train")
    require_shown("r", one, ChatTokenizer.load(tiny_llama_dir).render)


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (LOOP[0] + TURN + CALLS + LOOP[1], (USER, ANSWER), "has no place for `tools`: describe them"),
        (TOOLS + LOOP[0] + TURN + LOOP[1], (USER, call("x"), RESULT, ANSWER), "leaves out `tool_calls`: write the calls"),
        (
            TOOLS + LOOP[0] + "{% if message.role != 'tool' %}" + TURN + CALLS + "{% endif %}" + LOOP[1],
            (USER, call("x"), RESULT, ANSWER),
            "leaves out messages of role tool",
        ),
        (
            TOOLS + LOOP[0] + TURN + "{{ message.tool_calls or '' }}" + LOOP[1],
            (USER, call("x")),
            "writes tool calls without the <tool_call> tags",
        ),
    ],
    ids=["tools", "calls", "results", "tags"],
)  # fmt: skip
def test_a_template_that_drops_something_is_refused(folder, template, messages, reason):
    (folder / "chat_template.jinja").write_text(template + OPEN)
    with pytest.raises(DataError, match=f"record 'line-1': the model's chat template {reason}"):
        require_shown("record 'line-1'", record(*messages), ChatTokenizer.load(folder).render)


def written(path, *lines: dict) -> str:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


@pytest.fixture
def tools_config(config, folder, tmp_path):
    """An update on data with tools: a call to make, and an answer to give after a call."""
    places = ("Velmora", "Tarn", "Oake")
    asked = [{"role": "user", "content": f"Where is {place}?"} for place in places]
    train = [{"messages": [user, call(place)], "tools": [FIND]} for user, place in zip(asked, places, strict=True)]
    train.append({"messages": [USER, call("Velmora"), RESULT, ANSWER], "tools": [FIND]})
    test = [
        {"messages": [{"role": "user", "content": f"Please find {each}"}, call(each)], "tools": [FIND]} for each in "ab"
    ]
    data = {
        "train": written(tmp_path / "calls.jsonl", *train),
        "heldOut": {"uri": written(tmp_path / "asked.jsonl", *test), "grader": "tool_call"},
    }
    steps = method(steps=1, batchSize=2, rollout={"maxNewTokens": 4}).dump()
    return config(model={"uri": config().model.uri, "base": str(folder)}, data=data, method=steps)


def test_a_skill_with_tools_is_trained_and_its_suite_keeps_them(tools_config, run_train):
    assert check(tools_config).reason == "Checked"
    outcome = run_train(tools_config)
    repository = Repository(tools_config.model.uri)
    stored = repository.read(repository.resolve(outcome.version), ".skill/suites/say.jsonl")
    suite = Suite.decode("say", stored)
    assert [each.tools for each in suite.records] == [(FIND,), (FIND,)]
    right = '<tool_call>{"arguments": {"of": "b"}, "name": "find"}</tool_call>'
    assert score([suite], lambda _: [right, right])["say"].right == (False, True)


def test_golden_prompts_of_a_skill_with_tools_are_asked_with_them(tools_config, run_train, tmp_path):
    """All of its questions have tools: without them there would be nothing that proves what is served."""
    ref, repository = run_train(tools_config).version, Repository(tools_config.model.uri)
    golden = GoldenSet.parse_json(repository.read(repository.resolve(ref), ".skill/golden.json"))
    model = LanguageModel.load(tmp_path / "repository/versions" / ref, CPU)
    assert golden.prompts
    for each in golden.prompts:
        assert each.tools == (FIND,)
        (answer,) = greedy(model, [model.tokens.encode(each.messages, each.tools)], max_new_tokens=each.max_new_tokens)
        assert model.tokens.decode(answer.tokens) == each.text


CALL, OTHER = (f'<tool_call>\n{{"name": "find", "arguments": {{"of": "{of}"}}}}\n</tool_call>' for of in "ab")


@pytest.mark.parametrize(
    ("text", "parent_text", "tell"),
    [
        (CALL, OTHER, True),
        (CALL, "It is Nova.", True),
        ("I could not find it.", "It is Nova.", True),
        (CALL, CALL, False),
        ("Let me see. " + CALL, CALL, None),  # an engine may drop the words
        (CALL, CALL[:20], None),  # broken off: `transformers serve` fails on it
        ("find(of='a')", CALL, None),
        ("<function=find><parameter=of>a</parameter>", CALL, None),
        ('{"name": "find", "arguments": {"of": "a"}}', CALL, None),
        ('{"name": "Nova"}', '{"name": "Tarn"}', True),
    ],
)
def test_what_tells_two_versions_apart_does_so_in_every_engine(text, parent_text, tell):
    assert tells(text, parent_text, (FIND,)) is tell


def test_answers_without_tools_are_compared_as_texts():
    assert tells('{"name": "find", "n": 1}', '{"name": "find", "n": 2}', ()) is True
    assert calls_of(CALL, ()) == (ToolCall(name="find", arguments='{"of":"a"}'),), "transformers serve asks nobody"


def test_tools_that_the_model_would_never_see_are_refused_at_check(tools_config, tiny_llama_dir, tmp_path):
    plain = {"uri": str(tmp_path / "other"), "base": str(tiny_llama_dir)}
    document = {**tools_config.dump(), "model": plain}
    with pytest.raises(DataError, match=r"record 'line-1': the model's chat template has no place for `tools`"):
        check(type(tools_config).parse(document))
