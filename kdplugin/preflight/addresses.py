"""Are the addresses of weights such as somebody reads, and of whole models?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from kdplugin.distill.model_config import is_distiller
from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings

ZOOS = ('torchvision://', 'modelzoo://', 'open-mmlab://', 'openmmlab://', 'mmcls://', 'timm://')
"""Beginnings of addresses under which are backbones that were trained to classify."""


def check_addresses(found: Findings, config: Config) -> None:
    """``load_from`` and the checkpoints of teachers begin with a scheme that there is."""
    for path, file in _files(config):
        check_address(found, path, file)


def check_address(found: Findings, path: str, file: str) -> None:
    """A file is a path, or begins with a scheme that there is."""
    schemes = CheckpointLoader._schemes
    scheme, mark, _ = file.partition('://')
    if mark and not any(one and re.match(one, file) for one in schemes):
        known = [one for one in schemes if one.endswith('://') and one[0].isalpha()]
        near = did_you_mean(f'{scheme}://', known)
        found.error(path, f'Expected an address of {known} but got {file!r}.{near} Correct it.')


def check_whole_weights(found: Findings, config: Config) -> None:
    """``load_from`` and the checkpoints of teachers are of whole models."""
    for path, file in _files(config):
        if file.startswith(ZOOS):
            whose = 'the student' if path == 'load_from' else 'the teacher'
            found.error(
                path,
                f'Expected the weights of the whole model of {whose} but got {file!r}, a backbone that classifies. '
                'Name the file of the whole model here; weights of a backbone belong into its init_cfg.',
            )


def _files(config: Config) -> Iterator[tuple[str, str]]:
    model = config.get('model')
    places = {'load_from': config.get('load_from')}
    if isinstance(model, Mapping) and is_distiller(model):
        teachers = model.get('teachers')
        named = {f'teachers.{name}': one for name, one in teachers.items()} if isinstance(teachers, Mapping) else {}
        for name, one in {'teacher': model.get('teacher'), **named}.items():
            if isinstance(one, Mapping):
                places[f'model.{name}.checkpoint'] = one.get('checkpoint')
    yield from ((path, file) for path, file in places.items() if isinstance(file, str))
