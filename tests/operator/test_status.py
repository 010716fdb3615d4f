"""Status documents, merge patches, conditions, and what counts as settled."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_operator.api import FINALIZER
from skill_operator.conditions import is_settled, put, without
from skill_operator.status import Condition, Status, merge_patch, read
from tests.operator.raw import NOW

keys = st.sampled_from("abcd")
values = st.recursive(
    st.integers(0, 3) | st.text(max_size=2) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(keys, values, max_size=4)


def applied(document: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word by word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = applied(result.get(key), value)
    return result


@given(old=documents, new=documents)
def test_merge_patch_leads_from_old_to_new(old: dict[str, Any], new: dict[str, Any]):
    assert applied(copy.deepcopy(old), merge_patch(old, new)) == new


def test_phase_that_nobody_knows_is_dropped():
    assert read({"phase": "Dancing", "gpuSeconds": 5}) == Status(gpu_seconds=5)


@given(document=documents)
def test_merge_patch_of_equal_documents_is_empty(document: dict[str, Any]):
    assert merge_patch(document, copy.deepcopy(document)) == {}


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ({"phase": "Training", "rollout": {"candidate": 7}}, {"phase": "Training"}),
        ({"phase": "Training", "unknown": 1, "training": {"step": "x"}}, {"phase": "Training"}),
        ({"conditions": [{"type": "Ready"}], "gpuSeconds": 5}, {"gpu_seconds": 5}),
        ({"published": None, "phase": "Failed"}, {"phase": "Failed"}),
    ],
)
def test_broken_parts_of_a_status_are_dropped_and_the_rest_is_read(raw: dict[str, Any], kept: dict[str, Any]):
    status = read(raw)
    assert {name: getattr(status, name) for name in kept} == kept
    assert (status.rollout, status.training, status.conditions) == (None, None, ())


def test_time_of_a_condition_changes_with_its_truth_only():
    first = put(Status(), 1, NOW, Condition(type="Ready", status="False", reason="A"))
    second = put(first, 2, NOW + 60, Condition(type="Ready", status="False", reason="B"))
    third = put(second, 2, NOW + 120, Condition(type="Ready", status="True", reason="C"))
    seen = [(s.conditions[0].reason, s.conditions[0].observed_generation, s.conditions[0].last_transition_time) for s in
            (first, second, third)]  # fmt: skip
    assert seen == [
        ("A", 1, "2025-10-09T08:53:20Z"),
        ("B", 2, "2025-10-09T08:53:20Z"),
        ("C", 2, "2025-10-09T08:55:20Z"),
    ]


def test_condition_that_goes_leaves_the_others():
    both = put(Status(), 1, NOW, Condition(type="Queued", status="True"), Condition(type="Ready", status="False"))
    assert [condition.type for condition in without(both, ["Queued"]).conditions] == ["Ready"]


ENDED = {"True": "Succeeded", "False": "Failed", "Unknown": "Training"}


def body(
    *,
    succeeded: str = "True",
    seen: int = 3,
    finalizers: tuple[str, ...] = (),
    reverted: str = "",
    revert: bool = False,
    phase: str = "",
):
    conditions = [{"type": "Succeeded", "status": succeeded}]
    conditions += [{"type": "Reverted", "status": reverted}] if reverted else []
    return {
        "metadata": {"generation": 3, "finalizers": list(finalizers)},
        "spec": {"revert": revert},
        "status": {"observedGeneration": seen, "phase": phase or ENDED[succeeded], "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("raw", "settled"),
    [
        (body(), True),
        (body(succeeded="False"), True),
        (body(succeeded="Unknown"), False),
        (body(seen=2), False),
        (body(phase="Training"), False),
        (body(phase="Failed"), False),
        (body(finalizers=(FINALIZER,)), False),
        (body(finalizers=("foregroundDeletion",)), True),
        (body(revert=True), False),
        (body(revert=True, reverted="True"), True),
        (body(revert=True, reverted="False"), True),
        (body(revert=True, succeeded="False"), True),
        ({"metadata": {"generation": 1}}, False),
    ],
)
def test_settled(raw: dict[str, Any], *, settled: bool):
    assert is_settled(raw) == settled
