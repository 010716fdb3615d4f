"""The gates' verdicts, at and around their thresholds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_contract.evaluation import Comparison, Verdict
from skill_contract.spec import Gates, InContextGainGate, NewSkillGate, RetentionGate
from skill_trainer.gates import allowed_drop, in_context_gain_gate, new_skill_gate, overall, retention_gates

PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE
NEW = NewSkillGate(min_gain=0.05)
KEEP = RetentionGate(max_drop=0.02, min_normalized=0.9)


def items(kept: int = 0, lost: int = 0, won: int = 0, wrong: int = 0) -> tuple[list[bool], list[bool]]:
    """Results before and after with so many questions of each kind."""
    return [True] * (kept + lost) + [False] * (won + wrong), [True] * kept + [False] * lost + [True] * won + [
        False
    ] * wrong


def learned(settings: NewSkillGate = NEW, **counts: int) -> Comparison:
    return new_skill_gate("velmora", *items(**counts), settings)


def kept(settings: RetentionGate = KEEP, **counts: int) -> Comparison:
    before, after = items(**counts)
    (comparison,) = retention_gates({"qa": before}, {"qa": after}, settings)
    return comparison


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"won": 21, "wrong": 29}, PASSED),
        ({"won": 8}, PASSED),
        ({"won": 4, "wrong": 46}, INCONCLUSIVE),
        ({"won": 3, "wrong": 5}, INCONCLUSIVE),
        ({"wrong": 50}, INCONCLUSIVE),
        ({"wrong": 100}, FAILED),
        ({"lost": 10, "wrong": 90}, FAILED),
        ({"won": 15, "lost": 15, "kept": 170}, INCONCLUSIVE),
    ],
)
def test_new_skill(counts: dict[str, int], verdict: Verdict):
    comparison = learned(**counts)
    assert comparison.verdict == verdict, comparison
    assert bool(comparison.needed) == (verdict == INCONCLUSIVE)


def test_a_gain_at_the_threshold_is_not_enough_where_the_interval_reaches_below():
    comparison = learned(won=10, lost=2, kept=188)
    assert comparison.gain == pytest.approx(0.04)
    assert comparison.verdict == INCONCLUSIVE
    assert f"needs n >= {comparison.needed} at this effect (has 200)" in comparison.reason


def test_needed_questions_would_decide():
    comparison = learned(won=6, wrong=44)
    scale = comparison.needed / 50 + 0.2
    assert learned(won=round(6 * scale), wrong=round(44 * scale)).verdict == PASSED


def test_min_score_is_a_floor_under_the_measured_score():
    settings = NewSkillGate(min_gain=0.05, min_score=0.5)
    assert learned(settings, won=25, wrong=25).verdict == PASSED
    failed = learned(settings, won=24, wrong=26)
    assert failed.verdict == FAILED
    assert "score 0.48 (24 of 50 right) is below minScore 0.5" in failed.reason


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"kept": 1000, "wrong": 100}, PASSED),
        ({"kept": 8}, PASSED),
        ({"kept": 8, "won": 2}, PASSED),
        ({"kept": 99, "lost": 1}, INCONCLUSIVE),
        ({"kept": 997, "lost": 3}, PASSED),
        ({"kept": 90, "lost": 10}, FAILED),
        ({"kept": 50, "lost": 50}, FAILED),
        ({"kept": 80, "lost": 10, "won": 10}, INCONCLUSIVE),
        ({"kept": 60, "lost": 5, "won": 35}, PASSED),
    ],
)
def test_retention(counts: dict[str, int], verdict: Verdict):
    comparison = kept(**counts)
    assert comparison.verdict == verdict, comparison
    assert bool(comparison.needed) == (verdict == INCONCLUSIVE)


def test_nothing_lost_passes_and_says_what_could_have_gone_unseen():
    comparison = kept(kept=8)
    assert (comparison.verdict, comparison.low) == (PASSED, pytest.approx(-0.3244, abs=1e-4))
    assert comparison.reason.endswith("a drop of up to 0.32 could have gone unseen: use n >= 189 to see a drop of 0.02")
    assert "unseen" not in kept(kept=200).reason


def test_a_suite_that_the_parent_cannot_answer_says_so():
    comparison = kept(wrong=20)
    assert comparison.verdict == PASSED
    assert comparison.normalized == 1
    assert "cannot show forgetting" in comparison.reason


def test_normalised_limit_binds_where_the_parent_was_weak():
    """maxDrop alone would allow 0.3 of a score of 0.4; minNormalized 0.9 allows 0.04."""
    settings = RetentionGate(max_drop=0.3, min_normalized=0.9)
    comparison = kept(settings, kept=280, lost=120, wrong=600)
    assert comparison.normalized == pytest.approx(0.7)
    assert comparison.verdict == FAILED
    assert "-0.040 (minNormalized 0.9 of 0.40)" in comparison.reason
    assert kept(RetentionGate(max_drop=0.3, min_normalized=0), kept=280, lost=120, wrong=600).verdict == PASSED


@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 30), st.integers(1, 60))
def test_one_more_kept_answer_never_makes_retention_worse(kept_count: int, lost: int, won: int, wrong: int):
    order = [FAILED, INCONCLUSIVE, PASSED]
    settings = RetentionGate(max_drop=0.05, min_normalized=0)
    before = kept(settings, kept=kept_count, lost=lost + 1, won=won, wrong=wrong).verdict
    after = kept(settings, kept=kept_count + 1, lost=lost, won=won, wrong=wrong).verdict
    assert order.index(after) >= order.index(before)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_allowed_drop_answers_for_both_settings(before: float, max_drop: float, min_normalized: float):
    drop = allowed_drop(before, RetentionGate(max_drop=max_drop, min_normalized=min_normalized))
    assert drop <= max_drop
    assert before - drop >= min_normalized * before - 1e-9


def test_in_context_gain_reports_the_copy_control_and_ignores_it():
    student, teacher = items(won=40, wrong=10)
    settings = InContextGainGate()
    plain = in_context_gain_gate("velmora", student, teacher, settings)
    control = in_context_gain_gate("velmora", student, teacher, settings, copy_control=[True] * 2 + [False] * 48)
    assert plain.verdict == control.verdict == PASSED
    said = control.reason.removeprefix(plain.reason)
    assert said.startswith("; with another question's demonstration 2 of 50 are right, gain +0.04, 95 % interval -0.0")
    assert said.endswith("it hardly helps, the teacher may only copy")
    shown = in_context_gain_gate("velmora", student, teacher, settings, copy_control=[True] * 40 + [False] * 10)
    assert shown.reason.endswith("it shows the task")
    nats = {"student": 2.5, "teacher": 0.25, "control": 2.0}
    told = in_context_gain_gate("velmora", student, teacher, settings, answer_nats=nats)
    assert told.reason.endswith("takes 0.25 nats per token with the demonstration, 2.50 without, 2.00 with another's")
    assert told.verdict is plain.verdict
    assert in_context_gain_gate("velmora", student, teacher, settings, answer_nats={}).reason == plain.reason
    alone = in_context_gain_gate(
        "velmora", student, teacher, settings, copy_control=(), answer_nats={"teacher": 1.0, "student": 2.0}
    )
    assert "no control with another question's demonstration is possible" in alone.reason
    assert alone.reason.endswith("takes 1.00 nats per token with the demonstration, 2.00 without")


def test_a_teacher_that_is_no_better_fails_with_a_way_out():
    comparison = in_context_gain_gate("velmora", *items(kept=50, wrong=150), InContextGainGate())
    assert comparison.verdict == FAILED
    assert "write clearer demonstrations" in comparison.reason


def gate(verdict: Verdict, normalized: float = 1.0, suite: str = "s") -> Comparison:
    return Comparison(
        suite=suite, before=1, after=normalized, gain=0, low=0, high=0, n=9, normalized=normalized, verdict=verdict
    )


@pytest.mark.parametrize(
    ("in_context", "new", "retention", "gates", "verdict"),
    [
        (PASSED, PASSED, [PASSED, PASSED], {}, PASSED),
        (PASSED, PASSED, [PASSED, FAILED], {}, FAILED),
        (PASSED, INCONCLUSIVE, [FAILED], {}, FAILED),
        (PASSED, INCONCLUSIVE, [PASSED], {}, INCONCLUSIVE),
        (PASSED, INCONCLUSIVE, [PASSED], {"on_inconclusive": "Accept"}, PASSED),
        (PASSED, INCONCLUSIVE, [FAILED], {"on_inconclusive": "Accept"}, FAILED),
        (FAILED, PASSED, [], {}, FAILED),
        (FAILED, PASSED, [], {"in_context_gain": {"mode": "Warn"}}, PASSED),
        (INCONCLUSIVE, None, [], {}, INCONCLUSIVE),
        (None, PASSED, [], {"in_context_gain": {"mode": "Skip"}}, PASSED),
    ],
)
def test_overall(in_context, new, retention, gates, verdict: Verdict):
    evaluation = overall(
        Gates(**gates),
        in_context_gain=gate(in_context) if in_context else None,
        new_skill=gate(new) if new else None,
        retention=[gate(each, suite=f"earlier-{number}") for number, each in enumerate(retention)],
    )
    assert evaluation.verdict == verdict


def test_worst_retention():
    kept = [gate(PASSED, 0.97, "first"), gate(PASSED, 0.91, "second")]
    assert overall(Gates(), retention=kept).worst_retention == 0.91
    assert overall(Gates()).worst_retention is None


def test_results_of_different_questions_are_a_mistake():
    with pytest.raises(ValueError, match="2 results before and 1 after"):
        new_skill_gate("s", [True, False], [True], NEW)
    with pytest.raises(ValueError, match="0 results before and 0 after"):
        new_skill_gate("s", [], [], NEW)
    with pytest.raises(ValueError, match="differ"):
        retention_gates({"a": [True]}, {"b": [True]}, KEEP)
