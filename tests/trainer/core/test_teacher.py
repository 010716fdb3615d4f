"""The teacher's weights: frozen, or an average in fp32 with a closed form."""

from __future__ import annotations

import pytest
import torch

from skill_contract.spec import Teacher, TeacherWeights
from skill_trainer.teacher import Ema, Frozen, make_teacher


def first(model):
    return model.parameters()[0].detach()


def test_ema_is_its_closed_form_in_fp32(tiny):
    """phi_n = theta_0 + (1 - (1 - rate)^n) delta for a student that jumped by delta once."""
    rate, steps = 0.01, 250
    start = first(tiny).clone()
    teacher = Ema(tiny, rate)
    with torch.no_grad():
        tiny.parameters()[0].add_(2e-4)
    for _ in range(steps):
        teacher.follow(tiny)
    expected = start.double() + (1 - (1 - rate) ** steps) * (first(tiny).double() - start.double())
    torch.testing.assert_close(first(teacher.model).double(), expected, rtol=0, atol=2e-6)
    assert first(teacher.model).dtype == torch.float32


def test_ema_with_rate_one_is_the_student(tiny):
    teacher = Ema(tiny, 1.0)
    with torch.no_grad():
        tiny.parameters()[0].mul_(2)
    teacher.follow(tiny)
    assert torch.equal(first(teacher.model), first(tiny))


def test_frozen_teacher_stays(tiny):
    teacher = Frozen(tiny)
    start = first(tiny).clone()
    with torch.no_grad():
        tiny.parameters()[0].mul_(2)
    teacher.follow(tiny)
    assert torch.equal(first(teacher.model), start)


@pytest.mark.parametrize("weights", list(TeacherWeights))
def test_teacher_starts_from_the_student_in_memory_and_takes_no_gradient(tiny, weights):
    """Not from the folder that the student was loaded from: the two may differ."""
    with torch.no_grad():
        tiny.parameters()[0].mul_(3)
    teacher = make_teacher(Teacher(weights=weights), tiny)
    assert torch.equal(first(teacher.model), first(tiny))
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert all(parameter.requires_grad for parameter in tiny.parameters())
    head, embedding = teacher.model.head.weight_VD, teacher.model.network.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr(), "tied weights must stay tied in the copy"
