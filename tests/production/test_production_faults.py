"""Each fault changes what it says, and nothing behind its block."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from wan_fixtures import pipeline, same_size_student

from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.hooks import weight_projection_hook
from kdplugin.models.generators import WanLiteStudent
from kdplugin.production import faults
from kdplugin.weights.reading.io import hash_tensors

__all__ = ['pipeline']


def test_the_teacher_sees_zeros_within_the_block(pipeline: Path) -> None:
    teacher = WanTeacher(pipeline, 'float32')
    latents, times, text = torch.randn(1, 16, 4, 4), torch.tensor([500.0]), torch.randn(1, 3, 32)
    right, _ = teacher.outputs(latents, times, text)
    with faults.teacher_sees_zeros():
        wrong, _ = teacher.outputs(latents, times, text)
    assert torch.equal(wrong, teacher.outputs(torch.zeros_like(latents), times, text)[0])
    assert torch.equal(teacher.outputs(latents, times, text)[0], right)
    assert not torch.allclose(right, wrong, atol=1e-3)


def test_the_teacher_moves_within_the_block(pipeline: Path) -> None:
    teacher = WanTeacher(pipeline, 'float32')
    asked = torch.randn(1, 16, 4, 4), torch.tensor([500.0]), torch.randn(1, 3, 32)
    before = hash_tensors(teacher.module.state_dict())
    teacher.outputs(*asked)
    assert hash_tensors(teacher.module.state_dict()) == before
    with faults.teacher_is_trained():
        teacher.outputs(*asked)
    assert hash_tensors(teacher.module.state_dict()) != before


def test_rows_are_mixed_up_within_the_block() -> None:
    target = nn.Linear(2, 4)
    tensors = {'weight': torch.arange(8.0).reshape(4, 2), 'bias': torch.arange(4.0)}
    with faults.rows_of_others():
        weight_projection_hook.load_into(target, tensors)
    assert torch.equal(target.weight, tensors['weight'][[2, 3, 0, 1]])
    assert torch.equal(target.bias, tensors['bias'])
    weight_projection_hook.load_into(target, tensors)
    assert torch.equal(target.weight, tensors['weight'])


def test_one_matrix_is_lost_in_the_copy(tmp_path: Path) -> None:
    student = same_size_student()
    student.save_pretrained(tmp_path / 'whole')
    damaged = WanLiteStudent.from_pretrained(faults.damaged_copy(tmp_path / 'whole', tmp_path / 'damaged'))
    whole = WanLiteStudent.from_pretrained(tmp_path / 'whole').state_dict()
    changed = [name for name, value in damaged.state_dict().items() if not torch.equal(value, whole[name])]
    assert len(changed) == 1
    assert changed[0].endswith('attn1.to_v.weight')
    assert not damaged.state_dict()[changed[0]].any()
