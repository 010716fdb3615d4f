"""Two processes on this machine compute what one computes, and go on with each other's checkpoints."""

from __future__ import annotations

import sys

import pytest
import torch

from skill_trainer import launch
from skill_trainer.parallel import ALONE, balanced
from tests.trainer.core.two_processes import RESUMED, SPLITS, Attempt


@pytest.fixture(scope="module")
def both(tiny_llama_dir, tmp_path_factory):
    """What two processes have found, and their folder; in it, `one` holds a single process's checkpoints."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("both")
    Attempt(tiny_llama_dir, RESUMED, ALONE).run(folder / "one")
    command = [sys.executable, "-m", "tests.trainer.core.two_processes", str(tiny_llama_dir), str(folder)]
    ending = launch.together(2, command)
    assert ending.code == 0
    return torch.load(folder / "found.pt"), folder


def closest(one, other):
    """Returns the largest difference of two sets of tensors, in parts of the largest value."""
    assert one.keys() == other.keys()
    scale = max(tensor.abs().max() for tensor in one.values())
    return max((one[name] - other[name]).abs().max() for name in one) / scale


@pytest.mark.parametrize("name", SPLITS)
def test_loss_and_every_gradient_are_those_of_one_process(tiny_llama_dir, tmp_path, both, name):
    settings, part_tokens = SPLITS[name]
    one = Attempt(tiny_llama_dir, settings, ALONE).run(tmp_path, part_tokens=part_tokens).result()
    two = both[0]["splits"][name]
    assert two["lengths"] == one["lengths"], "other answers were sampled"
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
    assert two["top"] == pytest.approx(one["top"], rel=1e-4)
    assert two["gap"] == pytest.approx(one["gap"], abs=1e-5)
    assert one["gradients"]
    for expected, found in zip(one["gradients"], two["gradients"], strict=True):
        assert closest(expected, found) < 1e-5


def test_the_same_number_of_processes_resumes_bit_by_bit(both):
    found, folder = both
    for name, weight in found["two"]["weights"].items():
        assert torch.equal(weight, found["again"]["weights"][name])
    last = [
        {path.name: path.read_bytes() for path in (folder / run / "4").glob("*.safetensors")}
        for run in ("two", "again")
    ]
    assert last[0] == last[1]
    assert len(last[0]) == 6, "student, teacher and optimiser of two processes"


@pytest.mark.parametrize(("run", "step"), [("two", 2), ("one-two", 3)])
def test_another_number_of_processes_goes_on(tiny_llama_dir, tmp_path, both, run, step):
    """From two processes to one, and from one to two and back to one."""
    found, folder = both
    whole = Attempt(tiny_llama_dir, RESUMED, ALONE).run(tmp_path / "whole").result()
    resumed = Attempt(tiny_llama_dir, RESUMED, ALONE, folder / run / str(step))
    assert resumed.optimizer.state_dict()["state"][0]["step"] == step
    resumed = resumed.run(tmp_path / "resumed").result()
    assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    for result in (resumed, found["two"], found["one-two"]):
        assert closest(whole["weights"], result["weights"]) < 1e-5


def test_a_model_that_was_shared_out_answers_afterwards_as_it_did_before(both):
    """By recorded steps on a GPU, which are not tried while it lies in shares."""
    assert both[0]["two"]["records"]


def test_what_fails_in_one_process_fails_in_all(both):
    errors = {"first": "rank 0 cannot", "each": "rank 1 cannot", "spread": "rank 1 cannot"}
    assert both[0]["errors"] == [errors, errors]


def test_results_come_in_order_and_whoever_works_for_itself_is_alone(both):
    found = both[0]
    assert found["spread"] == [(row, 1) for row in range(5)]
    assert found["any"] == [True, False]
    assert found["totals"] == [1.0, 4.0]


def test_shares_are_of_like_cost_and_nothing_is_lost():
    costs = [5, 9, 2, 7, 1, 8]
    shares = balanced(costs, 3)
    assert sorted(item for share in shares for item in share) == list(range(6))
    assert sorted(sum(costs[item] for item in share) for share in shares) == [10, 10, 12]
    assert balanced([3.0], 3) == [[0], [], []]
    assert balanced(costs, 1) == [list(range(6))]
