"""The rule of the proof, without HTTP: enough of the candidate's answers, and more of them than of the parent's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_contract.manifest import Golden, GoldenSet, ToolCall
from skill_store.proof import MOST_NATS, Answer, backwards, judge
from tests.store.conftest import golden


def texts(said: list[str]) -> list[Answer]:
    return [Answer(text) for text in said]


def answers(new: int, old: int = 0, other: int = 0) -> list[Answer]:
    count = new + old + other
    kinds = ["new answer"] * new + ["old answer"] * old + ["something else"] * other
    return texts([f"{kind} {number}" for kind, number in zip(kinds, range(count), strict=True)])


@pytest.mark.parametrize(
    ("given_answers", "proved"),
    [
        (answers(8), True),
        (answers(6, other=2), True),
        (answers(6, old=2), True),
        (answers(5, other=3), False),
        (answers(0, old=8), False),
        (answers(0, other=8), False),
    ],
)
def test_three_quarters_are_needed(given_answers: list[Answer], proved: bool):
    assert judge("pod-1", golden(8), given_answers).proved is proved


def test_old_weights_are_seen_where_most_answers_are_alike():
    """Twelve of sixteen prompts tell nothing: the old weights pass the first count and fail the second."""
    alike = Golden(messages=({"role": "user", "content": "hi"},), text="same", parent_text="same ", max_new_tokens=4)
    prompts = GoldenSet(prompts=(alike,) * 12 + golden(4).prompts)
    old = judge("pod-1", prompts, texts(["same"] * 12) + answers(0, old=4))
    assert (old.matched, old.telling, old.as_parent) == (12, 4, 4)
    assert not old.proved
    assert "it may serve the old weights" in old.evidence()
    assert judge("pod-1", prompts, texts(["same"] * 12) + answers(4)).proved


def test_white_space_at_the_ends_is_the_engine_s():
    assert judge("pod-1", golden(1), texts([" new answer 0\n"])).proved


def test_without_prompts_nothing_is_proved():
    assert not judge("pod-1", GoldenSet(prompts=()), []).proved


def test_evidence_shows_pod_prompt_expected_and_got_shortened():
    result = judge("pod-1", golden(1), texts(["x" * 5000]))
    text = result.evidence()
    assert "pod pod-1 answered 0 of 1" in text
    assert "'question 0'" in text
    assert "'new answer 0'" in text
    assert len(text) < 500


def test_the_way_back_is_proved_by_the_same_prompts():
    back = backwards(golden(8))
    assert judge("pod-1", back, answers(0, old=8)).proved
    assert not judge("pod-1", back, answers(8)).proved
    unknown = golden(1).prompts[0].model_copy(update={"parent_text": ""})
    assert backwards(GoldenSet(prompts=(unknown,))).prompts == ()


@given(st.lists(st.sampled_from(["new answer", "old answer", "else"]), min_size=1, max_size=30))
def test_no_answers_prove_both_versions(kinds: list[str]):
    prompts = golden(len(kinds))
    said = texts([f"{kind} {number}" for number, kind in enumerate(kinds)])
    assert not (judge("pod", prompts, said).proved and judge("pod", backwards(prompts), said).proved)


def probable(*logprobs: float) -> GoldenSet:
    return GoldenSet(prompts=tuple(each.model_copy(update={"token_logprobs": logprobs}) for each in golden(4).prompts))


@pytest.mark.parametrize(("off", "proved"), [(MOST_NATS / 2, True), (MOST_NATS * 2, False)])
def test_weights_that_say_the_same_are_told_apart_by_how_sure_they_are(off: float, proved: bool):
    said = [Answer(each.text, (-1 - off, -2 - off)) for each in golden(4).prompts]
    result = judge("pod-1", probable(-1.0, -2.0), said)
    assert (result.proved, result.matched) == (proved, 4)
    assert f"{off:.3f} nats a token" in result.evidence()


def test_log_probabilities_of_another_text_say_nothing():
    said = [Answer("something else", (-9.0,)), *answers(4)[1:]]
    assert judge("pod-1", probable(-1.0), said).nats is None


# -- tool calls -----------------------------------------------------------------------------------------------------


def prompt_of(text: str, parent_text: str, *, of: str, parent_of: str) -> Golden:
    return Golden(
        messages=({"role": "user", "content": "Where?"},), max_new_tokens=16,
        text=text, calls=(ToolCall.of("find", {"of": of}),),
        parent_text=parent_text, parent_calls=(ToolCall.of("find", {"of": parent_of}),), token_logprobs=(-1.0,),
    )  # fmt: skip


def made(of: str, text: str = "") -> Answer:
    return Answer(text, (-9.0,), (ToolCall.of("find", {"of": of}),))


def test_calls_that_an_engine_has_taken_out_are_compared_whatever_it_leaves_of_the_words():
    prompts = GoldenSet(prompts=(prompt_of("I look: <new>", "<old>", of="a", parent_of="b"),))
    for text in ("", "I look:"):
        result = judge("pod-1", prompts, [made("a", text)])
        assert (result.proved, result.telling, result.nats) == (True, 1, None), "its tokens may be others"
    old = judge("pod-1", prompts, [made("b")])
    assert (old.proved, old.as_parent) == (False, 1)
    assert """it said 'find({"of":"b"})'""" in old.evidence()
    assert judge("pod-1", backwards(prompts), [made("b")]).proved
    assert judge("pod-1", prompts, [Answer("I look: <new>")]).proved, "of an engine that takes none out"


def test_equal_calls_tell_nothing_whatever_words_stand_around_them():
    """Else right weights would answer as candidate and as parent, and be taken for the old ones."""
    prompts = GoldenSet(prompts=(prompt_of("Well, <call>", "<call>", of="a", parent_of="a"),))
    taken = judge("pod-1", prompts, [made("a")])
    assert (taken.proved, taken.telling) == (True, 0)
    assert judge("pod-1", prompts, [Answer("Well, <call>", (-1.0,))]).telling == 1


def test_prompts_that_tell_nothing_are_said_to():
    alike = GoldenSet(prompts=tuple(each.model_copy(update={"parent_text": each.text}) for each in golden(4).prompts))
    result = judge("pod-1", alike, answers(4))
    assert result.proved
    assert result.untold == "0 of 4 golden prompts tell old weights from new: only digests show which are served"
    assert result.untold in result.evidence()
    assert judge("pod-1", golden(4), answers(4)).untold == ""
