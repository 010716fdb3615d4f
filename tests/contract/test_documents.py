"""The documents between the programs: what they refuse, and what they fit into."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_contract.evaluation import Action, Alarm, Comparison, Evaluation, Signature, Verdict
from skill_contract.manifest import File, Manifest, digest_of, version_name
from skill_contract.model import ContractError
from skill_contract.outcome import MAX_BYTES, Outcome, Result
from skill_contract.progress import Progress
from skill_contract.spec import Method, SkillUpdateSpec
from skill_contract.step import Step

MINIMAL = {
    "model": {"uri": "s3://models/m"},
    "skill": {"name": "s"},
    "data": {"train": "s3://d/train.jsonl", "heldOut": {"uri": "s3://d/test.jsonl"}},
}


def _comparison(suite: str, normalized: float = 1.0) -> Comparison:
    return Comparison(
        suite=suite,
        before=0.5,
        after=0.5,
        gain=0,
        low=-0.1,
        high=0.1,
        n=50,
        normalized=normalized,
        verdict=Verdict.PASSED,
        reason="one sentence",
    )


def test_minimal_spec_has_all_defaults():
    spec = SkillUpdateSpec.parse(MINIMAL)
    assert spec.method.sdft.teacher.ema_rate == 0.01
    assert spec.serving is None
    assert SkillUpdateSpec.parse(spec.dump()) == spec


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modell": {}}, "modell: Extra inputs are not permitted"),
        ({"skill": {}}, "skill.name: Field required"),
        (
            {"method": {"optimizer": {"learningRate": "fast"}}},
            "learningRate: Input should be a valid number",
        ),
        ({"method": {"sdft": {"divergence": "Reverse"}}}, "method.sdft.divergence: Input should be 'ForwardKL'"),
        (
            {"method": {"chatTemplateArguments": {"add_generation_prompt": False}}},
            "method.chatTemplateArguments: Value error, 'add_generation_prompt' is no argument",
        ),
        ({"method": {"chatTemplateArguments": {"bos_token": "x"}}}, "'bos_token' is no argument"),
        ({"method": {"chatTemplateArguments": {"a-b": 1}}}, "'a-b' is no argument"),
        ({"method": {"chatTemplateArguments": {"documents": [1]}}}, "method.chatTemplateArguments.documents"),
        ({"method": {"sdft": {"prompt": {"template": "Own"}}}}, "write template: Own together with text"),
        (
            {"method": {"sdft": {"prompt": {"text": "{question}{demonstration}"}}}},
            "with other templates remove text",
        ),
        (
            {"method": {"sdft": {"prompt": {"template": "Own", "text": "{question}"}}}},
            "text has no {demonstration}: write it where",
        ),
        ({"training": {"nodes": 0}}, "training.nodes: Input should be greater than or equal to 1"),
    ],
)
def test_problem_is_named_with_place_and_value(change: dict, words: str):
    with pytest.raises(ContractError, match="got") as caught:
        SkillUpdateSpec.parse(MINIMAL | change)
    assert words in str(caught.value)


def test_decimal_strings_of_the_spec_become_numbers():
    spec = SkillUpdateSpec.parse(MINIMAL | {"method": {"optimizer": {"learningRate": "1e-4"}}})
    assert spec.method.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("adaptation", "rate"),
    [({}, 1e-5), ({"type": "Full"}, 1e-5), ({"type": "LoRA"}, 1e-4), ({"type": "LoRA", "lora": {"rank": 8}}, 1e-4)],
)
def test_the_learning_rate_follows_the_adaptation(adaptation: dict, rate: float):
    """One that is implied is recorded as one that is written is, and the two are the same method."""
    implied = Method.parse({"adaptation": adaptation, "optimizer": {"schedule": "Constant"}})
    written = Method.parse({"adaptation": adaptation, "optimizer": {"schedule": "Constant", "learningRate": str(rate)}})
    assert implied == written
    assert implied.dump() == written.dump()
    assert implied.dump()["optimizer"]["learningRate"] == rate
    assert Method.parse({"adaptation": adaptation, "optimizer": {"learningRate": 0.5}}).optimizer.learning_rate == 0.5


def test_arguments_of_a_chat_template_keep_their_kinds():
    """A template asks `is false`, which neither 0 nor "false" is."""
    given = {"enable_thinking": False, "effort": "low", "budget": 0, "share": 0.5}
    read = Method.parse({"chatTemplateArguments": given}).chat_template_arguments
    assert [(name, type(value), value) for name, value in read.items()] == [
        (name, type(value), value) for name, value in given.items()
    ]
    assert Method.parse_json(Method.parse({"chatTemplateArguments": given}).dump_json()).chat_template_arguments == read


@given(
    message=st.text(max_size=6000),
    suites=st.integers(0, 60),
    details=st.dictionaries(st.text(max_size=20), st.text(max_size=500), max_size=20),
    alarms=st.lists(st.sampled_from(Signature), unique=True),
)
def test_outcome_always_fits_a_termination_message(message: str, suites: int, details: dict, alarms: list[Signature]):
    retention = tuple(_comparison(f"suite-{number}", normalized=1 - number / 100) for number in range(suites))
    seen = tuple(Alarm(signature=each, step=10**6, action=Action.MARK, message="ü" * 512) for each in alarms)
    evaluation = Evaluation(new_skill=_comparison("new"), retention=retention, alarms=seen, verdict=Verdict.PASSED)
    outcome = Outcome(
        step=Step.TRAIN,
        outcome=Result.SUCCEEDED,
        reason="Published",
        message=message,
        evaluation=evaluation,
        details=details,
    )
    encoded = outcome.encode()
    assert len(encoded) <= MAX_BYTES
    back = Outcome.parse_json(encoded)
    assert back.reason == "Published"
    assert back.evaluation is not None
    assert [each.signature for each in back.evaluation.alarms[:4]] == alarms[:4]
    if suites:
        assert back.evaluation.retention[-1].suite == f"suite-{suites - 1}", "the worst suite is kept in any case"


@pytest.mark.parametrize("reason", ["", "not camel", "lower", "X" * 65])
def test_reason_is_one_that_a_condition_takes(reason: str):
    document = {"step": "train", "outcome": "Failed", "reason": reason, "message": "m"}
    with pytest.raises(ContractError, match="reason"):
        Outcome.parse(document)


def test_short_outcome_loses_nothing():
    outcome = Outcome(
        step=Step.CHECK, outcome=Result.FAILED, reason="DataInvalid", message="line 2", details={"bad": ["line 2"]}
    )
    assert Outcome.parse_json(outcome.encode()) == outcome


def test_progress_cannot_say_nan():
    with pytest.raises(ContractError, match="finite"):
        Progress.parse({"stage": "Training", "heartbeat": 1.0, "loss": float("nan")})


def test_manifest_bytes_do_not_depend_on_the_order_of_keys():
    file = File(path="model.safetensors", size=3, sha256="0" * 64)
    manifest = Manifest(files=(file,), sequence=1, method={"b": 1, "a": 2})
    again = Manifest.parse(json.loads(manifest.encode()))
    assert again.encode() == manifest.encode()
    digest = digest_of(manifest.encode())
    assert version_name(1, digest) == f"000001-{digest[7:19]}"
