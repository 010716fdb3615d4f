"""How many threads a run takes: by wish, by the container's limit, by the machine."""

from __future__ import annotations

import os

import pytest

from skill_trainer.device import cpu_limit, num_threads


@pytest.mark.parametrize(("wish", "threads"), [("3", 3), ("1", 1), ("4,2", 4)])
def test_omp_num_threads_decides(monkeypatch, wish, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert num_threads() == threads


def test_without_a_wish_no_more_than_the_usable_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= num_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("content", "limit"), [("150000 100000", 1.5), ("max 100000", None)])
def test_limit_of_a_unified_control_group(tmp_path, content, limit):
    (tmp_path / "cpu.max").write_text(f"{content}\n")
    assert cpu_limit(tmp_path) == limit


@pytest.mark.parametrize(("quota", "limit"), [("200000", 2.0), ("-1", None)])
def test_limit_of_a_legacy_control_group(tmp_path, quota, limit):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_limit(tmp_path) == limit


def test_no_control_group_is_no_limit(tmp_path):
    assert cpu_limit(tmp_path) is None
