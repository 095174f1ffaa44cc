"""Addresses of weights that lead to another kind of model than is loaded from them."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.distill.settings import teacher_configs
from kdplugin.preflight.findings import Findings

ZOOS = ('torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://', 'timm://')
"""Beginnings of addresses under which are backbones that were trained to classify."""


def check_whole_weights(found: Findings, config: Config) -> None:
    """``load_from`` and the checkpoints of teachers are of whole models."""
    if isinstance(config.get('load_from'), str):
        _check_whole(found, 'load_from', config.load_from, 'the student')
    model = config.get('model')
    teachers = teacher_configs(model) if isinstance(model, Mapping) and is_distillation(model) else {}
    for name, settings in teachers.items():
        where = f'model.{"teacher" if name == "teacher" else f"teachers.{name}"}.checkpoint'
        file = settings.get('checkpoint') if isinstance(settings, Mapping) else None
        if isinstance(file, str):
            _check_whole(found, where, file, 'the teacher')


def _check_whole(found: Findings, where: str, file: str, whose: str) -> None:
    if file.startswith(ZOOS):
        found.error(
            where,
            f'Expected the weights of the whole model of {whose} but got {file!r}, a backbone that classifies. '
            'Name the file of the whole model here; weights of a backbone belong into its init_cfg.',
        )
