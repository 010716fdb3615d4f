"""Names: valid, within Kubernetes' limits, the same for the same thing, another for another."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from skill_operator.names import MAX_JOB_NAME, event_name, job_name

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
updates = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?", fullmatch=True)
steps = st.sampled_from(["check", "train", "promote", "revert"])


@given(update=updates, uid=st.uuids().map(str), step=steps, run=st.integers(1, 99))
def test_job_name_is_a_label_that_leaves_room_for_its_pods(update: str, uid: str, step: str, run: int):
    name = job_name(update, uid, step, run)
    assert LABEL.fullmatch(name)
    assert len(name) <= MAX_JOB_NAME
    assert len(f"{name}-0-abcde") <= 63
    assert f"-{step}-" in name


@given(update=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True), step=steps)
def test_job_name_keeps_an_allowed_update_name_whole(update: str, step: str):
    assert job_name(update, "uid", step).startswith(f"{update}-{step}-")


@given(update=updates, step=steps, uids=st.lists(st.uuids().map(str), min_size=2, max_size=2, unique=True))
def test_recreated_update_never_meets_the_jobs_of_its_predecessor(update: str, step: str, uids: list[str]):
    assert job_name(update, uids[0], step) != job_name(update, uids[1], step)


def test_each_run_has_its_own_name_and_keeps_it():
    names = {job_name("refund", "uid", "train", run) for run in range(1, 30)}
    assert len(names) == 29
    assert job_name("refund", "uid", "train", 3) in names


@given(update=updates, words=st.lists(st.text(), min_size=1, max_size=3))
def test_event_name_is_valid_and_tells_news_apart(update: str, words: list[str]):
    name = event_name(update, "uid", *words)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
    assert len(name) <= 253
    assert name == event_name(update, "uid", *words) != event_name(update, "other", *words)
