"""Laws that every method with parameters or a head of its own has to keep, as checks on a distilled model of mmdet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_fixtures import build, detection_batch, save_weights, teacher_of
from torch import nn

from kdplugin.distill.distiller import adapters_of
from kdplugin.weights.reading.io import hash_tensors

Batch = dict[str, Any]
PAIR = 'p'


def learner(
    folder: Path, pair: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any], **how: Any
) -> nn.Module:
    """Return a student that learns by one pair from a teacher of random weights, which runs as ``how`` says."""
    file = save_weights(teacher, folder / 'teacher.pth', seed=2)
    config = dict(type='kdplugin.Distiller', student=student, teacher=dict(model=teacher, checkpoint=file, **how))
    return build(dict(config, pairs={PAIR: pair})).train()


def batch_of(images: int = 2, *, size: int = 96, objects: bool = True, padded: bool = False, seed: int = 5) -> Batch:
    """Return images with two boxes and masks each, or none; ``padded`` ones fill three quarters of the width."""
    from mmdet.structures.mask import BitmapMasks

    batch = detection_batch(size, seed)
    batch['inputs'], batch['data_samples'] = batch['inputs'][:images], batch['data_samples'][:images]
    for sample in batch['data_samples']:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes * 0.6
        sample.gt_instances = sample.gt_instances if objects else sample.gt_instances[:0]
        count = len(sample.gt_instances)
        sample.gt_instances.masks = BitmapMasks(np.ones((count, size, size), dtype=np.uint8), size, size)
        if padded:
            sample.set_metainfo(dict(img_shape=(size, size * 3 // 4)))
    return batch


def raw(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the pair's loss of one forward pass, with its graph; its weight is 1."""
    return model(**batch, mode='loss')[f'loss_kd_{PAIR}']


def it_trains_the_student_and_its_own_parameters_only(model: nn.Module, plain: dict[str, Any], batch: Batch) -> None:
    """Two steps of the whole loss: the teacher stays bit for bit, and what is saved is the plain student."""
    teacher = teacher_of(model)
    before, own = hash_tensors(teacher.state_dict()), adapters_of(model)
    weights = {name: value.detach().clone() for name, value in own.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        total, logged = model.parse_losses(model(**batch, mode='loss'))
        assert total.isfinite()
        assert logged[f'kd_{PAIR}_raw'] > 0
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert all(value.grad is not None for value in own.parameters())
    moved = [name for name, value in own.named_parameters() if not torch.equal(value, weights[name])]
    assert bool(moved) == bool(weights)
    assert hash_tensors(teacher.state_dict()) == before
    assert not any(module.training for module in teacher.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())
    saved = model.state_dict()
    student = build(plain, initialise=False)
    assert list(saved) == list(student.state_dict())
    student.load_state_dict(saved, strict=True)


def gradients_of_the_pair_alone(model: nn.Module, batch: Batch, reached: str, own: bool) -> None:
    """Backward through the pair's term: a module of the student is reached, the teacher is not."""
    model.zero_grad()
    raw(model, batch).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert any(name.startswith(reached) and value.abs().max() > 0 for name, value in gradients.items())
    assert any(name.startswith('_kd.') and value.abs().max() > 0 for name, value in gradients.items()) == own
    assert all(value.isfinite().all() for value in gradients.values())
    assert all(value.grad is None and not value.requires_grad for value in teacher_of(model).parameters())


def one_image_suffices(model: nn.Module, batch: Batch) -> None:
    value = raw(model, batch_of(1))
    value.backward()
    assert value.detach() > 0
    assert value.isfinite()


def images_without_objects_are_welcome(model: nn.Module, batch: Batch) -> None:
    value = raw(model, batch_of(objects=False))
    value.backward()
    assert value.isfinite()


def half_precision_is_finite(model: nn.Module, batch: Batch) -> None:
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = raw(model, batch)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())
    torch.testing.assert_close(value.detach(), raw(model, batch).detach(), rtol=0.2, atol=0.02)


LAWS: tuple[Callable[[nn.Module, Batch], None], ...] = (
    one_image_suffices, images_without_objects_are_welcome, half_precision_is_finite,
)  # fmt: skip


def padding_does_not_count(
    method: Any, context: Callable[..., Any], student: torch.Tensor, teacher: torch.Tensor
) -> None:
    """Garbage where the images end, on both sides, changes nothing, and gets no gradient.

    Args:
        method: that looks at a tap 'x' on both sides.
        context: makes a StepContext of both tensors, of which the last quarter of columns is padding.
        student: (N, C, H, W).
        teacher: (N, C, H, W).
    """
    start = student.shape[3] * 3 // 4
    padding = torch.arange(student.shape[3]) >= start
    values = []
    for garbage in (0.0, 7.0):
        ours = torch.where(padding, garbage, student).requires_grad_()
        value = method.distance(context(ours, torch.where(padding, -garbage, teacher)))
        (gradient,) = torch.autograd.grad(value, ours)
        assert torch.count_nonzero(gradient[..., start:]) == 0
        values.append(value.detach())
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
