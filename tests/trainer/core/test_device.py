"""Threads by wish, by the container's limit, by the machine; kernels whose sums have an order, where there are such."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys

import pytest
import torch

from skill_trainer.device import cpu_limit, keep_order_if_possible, num_threads, prepare, without_order
from skill_trainer.model import LanguageModel


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


@pytest.fixture
def in_order(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # `prepare` leaves it behind
    prepare()
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.mark.usefixtures("in_order")
def test_the_promise_of_an_order_is_kept_outside_of_what_needs_none():
    with without_order():
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("in_order")
def test_an_operation_without_an_order_costs_the_promise_and_says_so(caplog):
    def refused():
        raise RuntimeError("histc does not have a deterministic implementation, but you set ...")

    with caplog.at_level(logging.WARNING):
        keep_order_if_possible(refused)
    assert "resuming will not be exact" in caplog.text
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    with without_order():
        pass
    assert torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("in_order")
def test_other_faults_of_a_rehearsal_are_not_hidden():
    def fails():
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        keep_order_if_possible(fails)


def test_a_rehearsal_goes_back_through_all_layers_and_leaves_no_gradients(tiny_llama_dir):
    model = LanguageModel.load(tiny_llama_dir, torch.device("cpu"))
    went_back = []
    for number, block in enumerate(model.blocks):
        block.register_full_backward_hook(lambda *_, number=number: went_back.append(number))
    model.rehearse()
    assert went_back == [1, 0]
    assert all(each.grad is None and each.requires_grad for each in model.parameters())


MEMORY = """
import resource, torch
from skill_trainer.device import prepare
prepare()
def pages(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = pages()
for _ in range(40):
    torch.ones(12 * 2**20)
print(pages() - before)
weight = torch.randn(576, 1536)
product = torch.ops.mkldnn._linear_pointwise
product(torch.randn(300, 1536), weight, None, "none", [], "")
before = resident()
for rows in range(200, 300):
    product(torch.randn(rows, 1536), weight, None, "none", [], "")
print(resident() - before)
"""


def test_on_a_cpu_freed_memory_is_taken_again_and_products_of_ever_other_sizes_keep_little():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True, env=environment)
    new_pages, kept_bytes = map(int, done.stdout.split())
    whole = 40 * 12 * 2**20 * 4 / resource.getpagesize()
    assert new_pages < whole / 2, "tensors of the size of those that were freed are made of new pages, again and again"
    assert kept_bytes < 1e8
