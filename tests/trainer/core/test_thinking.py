"""Models that think before they answer: what their chat template is told reaches every prompt; else it is warned of."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from skill_contract.evaluation import Action, Signature
from skill_contract.manifest import GoldenSet
from skill_contract.spec import TEMPLATE_GIVES
from skill_store.repository import Repository
from skill_trainer.curriculum import Curriculum
from skill_trainer.errors import ConfigInvalid
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import ChatTokenizer
from skill_trainer.objective import make_objective
from skill_trainer.steps.chats import unasked_thoughts
from skill_trainer.steps.check import check
from skill_trainer.thoughts import share_of, thought_share
from tests.trainer.core.conftest import examples, method
from tests.trainer.core.test_watch import watched_run

CHAT = "{% for each in messages %}{{ '<|im_start|>' + each.role + '\\n' + each.content + '<|im_end|>\\n' }}{% endfor %}"
NO_THOUGHTS = "<think>\n\n</think>\n\n"
# As Qwen3's: unless told otherwise, the model is let think, and else finds that it has thought already.
UNLESS_TOLD = (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
# As DeepSeek-V3.1's: only when it is told to.
ONLY_TOLD = (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if thinking is defined and thinking %}{{ '<think>' }}{% else %}{{ '</think>' }}{% endif %}{% endif %}"
)
ALWAYS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def thinking(tiny_llama_dir, tmp_path):
    """Returns the tiny model with another end of its chat template."""

    def make(end: str):
        base = shutil.copytree(tiny_llama_dir, tmp_path / "thinking", dirs_exist_ok=True)
        (base / "chat_template.jinja").write_text(CHAT + end)
        return base

    return make


def test_no_argument_may_stand_for_what_the_template_is_given_anyway():
    """All that whoever applies a template can be asked for by name, in the library that is installed."""
    own = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters.keys() - {"self", "kwargs"}
    assert own <= TEMPLATE_GIVES


def test_every_prompt_is_made_with_the_arguments(thinking):
    plain = ChatTokenizer.load(thinking(UNLESS_TOLD))
    told = ChatTokenizer.load(thinking(UNLESS_TOLD), {"enable_thinking": False})
    ends = [each.tokenizer.decode(each.encode(HELLO)).removesuffix(NO_THOUGHTS) for each in (plain, told)]
    assert ends[0] == ends[1]
    assert told.encode(HELLO) != plain.encode(HELLO)
    listing = "{{ style }}{% for each in messages %}{{ each.content }}{% endfor %}"
    folder = thinking(listing)
    (folder / "chat_template.jinja").write_text(listing)
    assert ChatTokenizer.load(folder, {"style": "brief: "}).render(HELLO) == "brief: Hello"


@pytest.mark.parametrize(
    ("end", "arguments", "words"),
    [
        (UNLESS_TOLD, {}, "write method.chatTemplateArguments: {enable_thinking: false}, or true"),
        (UNLESS_TOLD, {"enable_thinking": False}, ""),
        (UNLESS_TOLD, {"enable_thinking": True}, ""),
        (ONLY_TOLD, {}, ""),
        (ONLY_TOLD, {"thinking": True}, ""),
        (ALWAYS, {}, "raise maxNewTokens, and write demonstrations that think, too"),
        ("", {}, ""),
    ],
)
def test_thoughts_that_nobody_asked_for_are_warned_of(thinking, end, arguments, words):
    said = " ".join(unasked_thoughts(ChatTokenizer.load(thinking(end), arguments)))
    assert words in said
    assert bool(said) == bool(words)


def test_the_check_warns_and_takes_no_argument_that_the_template_does_not_know(config, thinking):
    model = {**config().model.dump(), "base": str(thinking(UNLESS_TOLD))}
    warned = check(config(model=model))
    assert "Noted: the model's chat template lets it think" in warned.message
    assert "lets it think" in warned.details["warnings"][0]
    told = method(chatTemplateArguments={"enable_thinking": False}).dump()
    assert "think" not in check(config(model=model, method=told)).message
    mistyped = method(chatTemplateArguments={"enable_thinkin": False}).dump()
    with pytest.raises(
        ConfigInvalid, match=r"chatTemplateArguments\.enable_thinkin: the model's chat template does not"
    ):
        check(config(model=model, method=mistyped))


def test_a_version_records_what_its_template_was_told(config, thinking, run_train):
    """In the manifest, so that another argument is another update, and in golden prompts, so that engines are told."""
    model = {**config().model.dump(), "base": str(thinking(UNLESS_TOLD))}
    parts = config(model=model, method=method(chatTemplateArguments={"enable_thinking": False}).dump())
    published = run_train(parts)
    repository = Repository(parts.model.uri)
    ref = repository.resolve(published.version)
    assert repository.manifest(ref).method["chatTemplateArguments"] == {"enable_thinking": False}
    golden = GoldenSet.parse_json(repository.read(ref, ".skill/golden.json"))
    assert golden.prompts
    assert all(each.chat_template_arguments == {"enable_thinking": False} for each in golden.prompts)
    repository.move_head(ref, expected=repository.head())
    assert check(parts).reason == "AlreadyApplied"
    assert check(config(model=model)).reason == "Checked"
    report = json.loads(repository.read(ref, ".skill/report.json"))
    assert not [each for each in report["warnings"] if "think" in each]
    assert not [point for point in report["series"] if "thoughtShare" in point], "there is nothing to draw"


def test_the_report_repeats_the_warning(config, thinking, run_train):
    model = {**config().model.dump(), "base": str(thinking(ALWAYS))}
    parts = config(model=model)
    run_train(parts)
    report = json.loads(Repository(parts.model.uri).run(parts.update.uid).get("report.json"))
    assert [each for each in report["warnings"] if "think before it answers" in each]
    assert [point["thoughtShare"] for point in report["series"]] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "is_begun", "share"),
    [
        ("It is tea.", False, 0.0),
        ("<think>four</think>five!", False, 4 / 24),
        ("four</think>five!", True, 4 / 17),
        ("<think>and so on", False, 9 / 16),  # cut
        ("and so on", True, 1.0),
        ("<think>a</think>b<think>c</think>", False, 2 / 33),
        ("", True, 0.0),
    ],
)
def test_share_of_an_answer_that_is_thought(answer, is_begun, share):
    assert share_of(answer, is_begun=is_begun) == pytest.approx(share)


def test_a_thought_that_the_chat_template_has_opened_counts(thinking):
    for end, share in ((ALWAYS, 1.0), (UNLESS_TOLD, 0.0)):
        tokens = ChatTokenizer.load(thinking(end))
        answer = tokens.tokenizer.encode("So it is")
        assert thought_share(tokens, [tokens.encode(HELLO)], [answer]) == share


def test_a_model_that_thinks_less_is_named(tiny):
    """It thinks by heart; its frozen teacher has learned to answer at once."""
    steady = {"warmupSteps": 2, "schedule": "Constant"}
    learning = {"type": "SFT", "batchSize": 5, "optimizer": {"learningRate": 0.02, **steady}}
    settings = method(
        steps=20,
        batchSize=5,
        rollout={"maxNewTokens": 32},
        optimizer={"learningRate": 0.003, **steady},
        sdft={"teacher": {"weights": "Frozen"}, "skipTokens": 0},
    )
    by_heart(tiny, "<think>so, so and so</think>tea", method(steps=100, **learning))
    objective = make_objective(settings, tiny)
    teacher = objective.teacher.model
    teacher.network.requires_grad_(requires_grad=True)
    by_heart(teacher, "tea", method(steps=30, **learning))
    reports = []
    found = watched_run(tiny, objective, examples(tiny, settings), settings, reports)
    assert reports[0].thought_share > 0.05
    assert found[Signature.THOUGHTS_FADE] is Action.MARK


def by_heart(model, answer: str, settings) -> None:
    """Trains a model to say this, whatever it is asked."""
    target = tuple(model.tokens.encode_answer(answer))
    shown = [replace(example, target=target) for example in examples(model, settings)]
    train(
        model, make_objective(settings, model), make_optimizer(model), Curriculum(shown), settings, done=0,
        save_every=999, on_step=lambda _: None, save=lambda _: None, stop=lambda: False,
    )  # fmt: skip
