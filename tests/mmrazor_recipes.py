"""MMRazor recipes on tiny models, written as its own configs are."""

from __future__ import annotations

from typing import Any

from engine_fixtures import detector, segmentor
from mmengine.config import Config

CWD = dict(type='ChannelWiseDivergence', tau=4, loss_weight=3)


def side(recorder: str, student: bool, **more: Any) -> dict[str, Any]:
    return dict(recorder=recorder, from_student=student, **more)


def distiller(losses: dict[str, Any], mappings: dict[str, Any], source: str, **more: Any) -> dict[str, Any]:
    """Return a ConfigurableDistiller whose one recorder 'x' sees one module on both sides."""
    recorders = dict(x=dict(type='ModuleOutputs', source=source))
    return dict(
        type='ConfigurableDistiller', student_recorders=recorders, teacher_recorders=recorders, distill_losses=losses,
        loss_forward_mappings=mappings, **more,
    )  # fmt: skip


def mapping(**more: Any) -> dict[str, Any]:
    return dict(preds_S=side('x', True, **more), preds_T=side('x', False, **more))


def recipe(
    losses: dict[str, Any],
    mappings: dict[str, Any],
    source: str = 'decode_head.conv_seg',
    *,
    student: Any = None,
    teacher: Any = None,
    scope: str = 'mmseg',
    top: dict[str, Any] | None = None,
    **more: Any,
) -> Config:
    """Return a whole config; by default a segmentor of 48x48 images learns from a wider one."""
    model = dict(
        type='SingleTeacherDistill', _scope_='mmrazor', architecture=student or segmentor(),
        teacher=teacher or segmentor(16), teacher_ckpt='teacher.pth',
        distiller=distiller(losses, mappings, source),
    )  # fmt: skip
    model.update(more)
    rest = dict(default_scope=scope, train_dataloader=dict(batch_size=4), find_unused_parameters=True, **(top or {}))
    return Config(dict(model=model, **rest))


def pyramid_recipe(levels: int, loss: dict[str, Any], source: str = 'neck', **more: Any) -> Config:
    """Return a detector that learns the first levels of a pyramid of five, one loss for each."""
    losses = {f'loss_fpn{n}': loss for n in range(levels)}
    mappings = {f'loss_fpn{n}': mapping(data_idx=n) for n in range(levels)}
    wide = dict(student=detector(neck=16), teacher=detector(16, 16))
    resize = dict(type='Resize', scale=(160, 96), keep_ratio=True)
    top = dict(train_dataloader=dict(batch_size=2, dataset=dict(pipeline=[resize])))
    config = recipe(losses, mappings, source, scope='mmdet', **wide, **more)
    config.merge_from_dict(top)
    return config
