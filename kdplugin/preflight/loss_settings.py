"""Settings of a model by which a part of its task is not trained: names and weights of losses, dropout, assigners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of


def parts_of(settings: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and settings of every dict in a model config.

    Example:
        >>> [path for path, _ in parts_of(dict(neck=dict(), heads=[dict()]), 'model')]
        ['model', 'model.neck', 'model.heads.0']
    """
    if isinstance(settings, Mapping):
        yield path, settings
        for key, value in settings.items():
            yield from parts_of(value, f'{path}.{key}')
    elif isinstance(settings, list | tuple):
        for number, value in enumerate(settings):
            yield from parts_of(value, f'{path}.{number}')


def student_parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and settings of every dict in the model that is trained."""
    model = config.get('model')
    if isinstance(model, Mapping) and is_distillation(model):
        yield from parts_of(model.get('student'), 'model.student')
    else:
        yield from parts_of(model, 'model')


def check_losses(found: Findings, config: Config) -> None:
    """Every loss of the student is added to the total, with a weight that pulls the right way."""
    for path, part in student_parts(config):
        name = part.get('loss_name')
        if isinstance(name, str) and 'loss' not in name:  # mmengine adds up what has the word in its name
            found.error(
                f'{path}.loss_name',
                f"Expected a name that begins with 'loss_' but got {name!r}. It is logged and not trained: write "
                f"loss_name='loss_{name}'.",
            )
        _check_weight(found, path, part.get('loss_weight'))
        _check_class_weight(found, path, part.get('class_weight'))
        ratio = part.get('dropout_ratio')
        if is_number(ratio) and ratio >= 1:  # mmseg's recipes write -1 for none
            found.error(
                f'{path}.dropout_ratio',
                f'Expected a number below 1 but got {ratio}. All features would be dropped: write 0.1.',
            )
        topk = part.get('topk')
        if kind_of(part).endswith('Assigner') and is_number(topk) and topk < 1:
            found.error(
                f'{path}.topk', f'Expected a number >= 1 but got {topk}. No anchor is assigned to an object: write 9.'
            )


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell numbers from what Python counts as such besides."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_weight(found: Findings, path: str, weight: Any) -> None:
    if not is_number(weight) or weight > 0:
        return
    if weight < 0:
        found.error(
            f'{path}.loss_weight',
            f'Expected a number > 0 but got {weight}, which pushes away from the labels. Write {-weight}.',
        )
    else:
        found.warning(
            f'{path}.loss_weight',
            f'Expected a number > 0 but got {weight}. This part of the task is not trained: give a weight.',
        )


def _check_class_weight(found: Findings, path: str, weights: Any) -> None:
    if isinstance(weights, list | tuple) and weights and all(is_number(one) and one == 0 for one in weights):
        found.error(
            f'{path}.class_weight',
            'Expected a number > 0 for every class that counts but got zeros. Nothing is trained: write 1.0, or '
            'class_weight=None.',
        )
