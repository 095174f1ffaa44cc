"""Are the numbers by which images are normalised and padded such as a preprocessor takes, and is the right one read?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distiller
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.pipelines import all_steps, pipelines_of

COLOURS = ('mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr')


def preprocessors(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and settings of every place that may say how images are prepared, the one that wins first."""
    model = config.get('model')
    student = model.get('student') if isinstance(model, Mapping) and is_distiller(model) else None
    for path, holder in (('model.student.', student), ('model.', model), ('', config)):
        own = holder.get('data_preprocessor') if isinstance(holder, Mapping | Config) else None
        if isinstance(own, Mapping):
            yield f'{path}data_preprocessor', own


def check_preprocessor(found: Findings, config: Config) -> None:
    """Mean and std are numbers for each channel, colours are turned once, and no second preprocessor goes unread."""
    given = list(preprocessors(config))
    for path, settings in given[:1]:
        _check_numbers(found, path, settings, channels_of(config, settings))
        _check_turned(found, path, settings)
        _check_divisor(found, path, settings)
        if not _learns_depth(config):
            _check_label_padding(found, path, settings)
    for path, settings in given[1:]:
        if any(settings.get(key) != given[0][1].get(key) for key in COLOURS):  # mmseg's recipes differ in size
            found.warning(
                path,
                f'Expected one data_preprocessor but got another at {given[0][0]}, which alone is read. Keep one of '
                'them.',
            )


def channels_of(config: Config, settings: Mapping[str, Any]) -> set[Any]:
    """Return how many numbers may be given: of colours, of grey, of what the backbone takes, of two images at once."""
    model = config.get('model')
    student = model.get('student', model) if isinstance(model, Mapping) else None
    backbone = student.get('backbone') if isinstance(student, Mapping) else None
    own = {backbone.get('in_channels')} if isinstance(backbone, Mapping) else set()
    return {1, 3} | own | ({2, 6} if kind_of(settings).startswith('DualInput') else set())


def _check_numbers(found: Findings, path: str, settings: Mapping[str, Any], channels: set[Any]) -> None:
    mean, std = settings.get('mean'), settings.get('std')
    if (mean is None) != (std is None):
        found.error(
            f'{path}.{"std" if std is None else "mean"}',
            f'Expected mean and std together but got mean={mean!r} and std={std!r}. Give both or none.',
        )
        return
    for key, values in (('mean', mean), ('std', std)):
        if values is None:
            continue
        numbers = isinstance(values, list | tuple) and all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in values
        )
        if not numbers or len(values) not in channels:
            found.error(
                f'{path}.{key}', f'Expected 3 numbers, one for each channel (1 for grey images), but got {values!r}. '
                f'Correct {key}.',
            )  # fmt: skip
            return
    if mean is not None and std is not None and len(mean) != len(std):
        found.error(f'{path}.std', f'Expected {len(mean)} numbers as in mean but got {len(std)}. Correct std.')


def _check_turned(found: Findings, path: str, settings: Mapping[str, Any]) -> None:
    if settings.get('bgr_to_rgb') and settings.get('rgb_to_bgr'):
        found.error(
            f'{path}.rgb_to_bgr',
            'Expected either bgr_to_rgb or rgb_to_bgr but got both, which turn the colours twice. Images are read as '
            'blue, green, red: keep bgr_to_rgb.',
        )


def _check_divisor(found: Findings, path: str, settings: Mapping[str, Any]) -> None:
    value = settings.get('pad_size_divisor', 1)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        found.error(f'{path}.pad_size_divisor', f'Expected a whole number >= 1 but got {value!r}. Give for example 32.')


def _learns_depth(config: Config) -> bool:
    """Tell whether labels are depths, of which 0 is none."""
    steps = [step for _, steps in pipelines_of(config, 'train_dataloader') for step in all_steps(steps)]
    return any('Depth' in kind_of(step) for step in steps)


def _check_label_padding(found: Findings, path: str, settings: Mapping[str, Any]) -> None:
    """Labels are padded with what losses of mmseg leave out, not with a class."""
    value = settings.get('seg_pad_val', 255)
    if kind_of(settings).endswith('SegDataPreProcessor') and isinstance(value, int) and value == 0:
        found.warning(
            f'{path}.seg_pad_val',
            'Expected 255, which losses leave out, but got 0. Padding is trained as class 0: write seg_pad_val=255.',
        )
