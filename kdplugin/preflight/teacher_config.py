"""What a teacher's config tells before anything is built."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from kdplugin.config_files import parse
from kdplugin.distill.model_config import plain_model_config
from kdplugin.distill.teachers.output_cache import parse_bytes
from kdplugin.distill.teachers.teacher import teacher_model_config
from kdplugin.errors import ConfigError
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.pipelines import all_steps, pipelines_of

SMALLEST = 32
"""Pixels of a side below which the maps of most backbones vanish."""
ROOM = 1_000_000
"""Bytes below which a cache holds hardly an image."""


def teacher_model(found: Findings, settings: Mapping[str, Any], where: str) -> Any:
    """Return the model config of a teacher, None with an error where there is none to be had."""
    if ('cfg' in settings) == ('model' in settings) or not isinstance(settings.get('cfg', ''), str):  # teacher_mistakes
        return None
    return found.attempt(where, 'the config of the teacher', teacher_model_config, settings)


def whole_config(settings: Mapping[str, Any]) -> Config | None:
    """Return the file that a teacher was trained with, None where its config names none."""
    file = settings.get('cfg')
    if not isinstance(file, str):
        return None
    try:
        return parse(file)
    except Exception:  # said by teacher_model
        return None


def with_preprocessor(settings: Any) -> Any:
    """Return something that has the ``data_preprocessor`` of a model config, built, and nothing else."""
    own = settings.get('data_preprocessor') if isinstance(settings, Mapping) else None
    if not isinstance(own, Mapping):
        return None
    own = copy.deepcopy(dict(own))
    own.setdefault('_scope_', settings.get('_scope_'))
    try:
        return SimpleNamespace(data_preprocessor=MODELS.build(own))
    except Exception:  # its type or keys are said elsewhere
        return None


def student_settings(config: Config) -> Any:
    """Return the model config of the student with its preprocessor; None where it cannot be read."""
    try:
        return plain_model_config(config)
    except Exception:  # said elsewhere
        return None


def same_file(student: Config, teacher: Mapping[str, Any]) -> bool:
    """Tell whether student and teacher begin with the same file of weights."""
    one, other = student.get('load_from'), teacher.get('checkpoint')
    if not isinstance(one, str) or not isinstance(other, str) or '://' in one or '://' in other:
        return False
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def check_teacher_images(found: Findings, config: Config, settings: Mapping[str, Any], where: str) -> None:
    """Images are resized for a teacher to the sides that they have, in the order height, width."""
    size, scale = settings.get('input_size'), settings.get('scale')
    if isinstance(scale, int | float) and not isinstance(scale, bool) and not 0.1 <= scale <= 4:
        found.warning(
            f'{where}.scale',
            f'Expected a factor of the sides such as 0.5 or 2 but got {scale:g}. The teacher was not trained on such '
            'images: correct scale.',
        )
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(one, int) for one in size)):
        return
    if min(size) < SMALLEST:
        found.warning(
            f'{where}.input_size',
            f'Expected sides of at least {SMALLEST} pixels but got {tuple(size)}. Nothing is left of the image: '
            'correct input_size.',
        )
        return
    for width, height in _scales(config):
        if (size[0] - size[1]) * (height - width) < 0:
            found.warning(
                f'{where}.input_size',
                f'Expected (height, width), and the pipeline resizes to (width, height)={(width, height)}, but got '
                f'{tuple(size)}. The images would be squeezed: did you mean {(size[1], size[0])}? Write input_size='
                f'{(size[1], size[0])}.',
            )
            return


def _scales(config: Config) -> Iterator[tuple[int, int]]:
    """Yield the (width, height) of every resizing of training images that keeps none of their sides."""
    for _, steps in pipelines_of(config, 'train_dataloader'):
        for step in all_steps(steps):
            given = step.get('scale')
            if kind_of(step) == 'Resize' and isinstance(given, list | tuple) and len(given) == 2:
                yield given[0], given[1]


def check_cache_settings(found: Findings, settings: Mapping[str, Any], where: str) -> None:
    """A teacher's cache is in a folder that can be written, and has room for images."""
    cache = settings.get('cache')
    if not isinstance(cache, Mapping) or not isinstance(cache.get('dir'), str):
        return
    folder = Path(cache['dir']).expanduser()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = 'a folder that may be written' if folder.is_dir() else 'a folder'
        found.error(
            f'{where}.cache.dir',
            f'Expected {what} for the cache but {folder} is none. Choose another dir.',
        )
    with contextlib.suppress(ConfigError):  # said where the keys of the teacher are
        size = parse_bytes(cache.get('max_bytes'))
        if size < ROOM:
            near = f" Did you mean '{size}GB'?" if size < ROOM // 1000 else ''
            found.warning(
                f'{where}.cache.max_bytes',
                f'Expected room for the outputs of many images but got {size} bytes.{near} Give for example '
                "max_bytes='20GB'.",
            )
