"""Numbers and names of classes across data, student and teacher, from configs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.data import EDGES, LOADERS, OTHER_CLASSES, dataset_classes, datasets_of
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of


def configured_heads(settings: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and settings of every head that says how many classes it predicts.

    Example:
        >>> list(configured_heads(dict(bbox_head=dict(num_classes=3)), 'model'))
        [('model.bbox_head', {'num_classes': 3})]
    """
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            below = f'{path}.{key}'
            heads = value if isinstance(value, list | tuple) else [value]
            if str(key).endswith('_head') and key not in OTHER_CLASSES:
                for number, head in enumerate(heads):
                    counts = isinstance(head, Mapping) and isinstance(head.get('num_classes'), int)
                    if counts and kind_of(head) not in EDGES:
                        yield (below if head is value else f'{below}.{number}'), head
            if key not in ('rpn_head', 'pairs', 'teacher', 'teachers'):
                yield from configured_heads(value, below)
    elif isinstance(settings, list | tuple):
        for number, value in enumerate(settings):
            yield from configured_heads(value, f'{path}.{number}')


def classes_of(config: Mapping[str, Any], loader: str) -> tuple[str, ...] | None:
    """Return the names of a loader's classes; None where they are not known or its datasets differ."""
    found: set[tuple[str, ...]] = set()
    for dataset in datasets_of(config, loader):
        try:
            classes = dataset_classes(dataset)
        except Exception:  # said by check_dataset_files
            return None
        if classes is None or isinstance(classes, str):
            return None
        found.add(tuple(map(str, classes)))
    return found.pop() if len(found) == 1 else None


def check_metainfo(found: Findings, config: Config) -> None:
    """``metainfo`` is written as this version reads it."""
    for loader in LOADERS:
        for dataset in datasets_of(config, loader):
            metainfo = dataset.get('metainfo')
            if not isinstance(metainfo, Mapping):
                continue
            where = f'{loader}.dataset.metainfo'
            for key in metainfo:
                if key != str(key).lower() and str(key).lower() in ('classes', 'palette'):
                    found.error(
                        where,
                        f'Expected {str(key).lower()!r} but got {key!r}, which is not read. Write it in lower case.',
                    )
            classes, palette = metainfo.get('classes'), metainfo.get('palette')
            if isinstance(classes, list | tuple):
                double = sorted({str(name) for name in classes if list(classes).count(name) > 1})
                if double:
                    found.error(where, f'Expected every class once but got {double} twice. Rename or remove them.')
                if isinstance(palette, list | tuple) and len(palette) != len(classes):
                    found.warning(
                        where,
                        f'Expected a colour for each of {len(classes)} classes but got {len(palette)}. Correct it.',
                    )


def check_class_names(found: Findings, config: Config) -> None:
    """Training and validation mean the same by their classes."""
    if names_by_text(config.get('model')):
        return
    train, val = (classes_of(config, loader) for loader in LOADERS)
    if train is None or val is None or train == val:
        return
    if sorted(train) == sorted(val):
        text = 'the same classes in another order, so every prediction would get another name'
    elif len(train) == len(val):
        pairs = [f'{one!r} and {other!r}' for one, other in zip(train, val, strict=True) if one != other]
        text = f'{", ".join(pairs[:3])} in their places'
    else:
        text = f'{len(train)} and {len(val)}'
    found.error(
        'val_dataloader.dataset.metainfo',
        f'Expected the same classes in training and validation but got {text}. Give both the same metainfo.',
    )


def names_by_text(model: Any) -> bool:
    """Tell whether a model, or the student of one, is told by a text what to look for."""
    one = model.get('student', model) if isinstance(model, Mapping) else None
    return isinstance(one, Mapping) and one.get('language_model') is not None


def configured_classes(model: Any) -> dict[str, int]:
    """Return ``num_classes`` of the heads in a model config by their path; empty where text names the classes."""
    if not isinstance(model, Mapping) or names_by_text(model):
        return {}
    return {path.removeprefix('.'): head['num_classes'] for path, head in configured_heads(model, '')}


def check_class_weights(found: Findings, model: Any, path: str) -> None:
    """The losses of a model config weigh as many classes as their heads predict."""
    for where, head in configured_heads(model, path):
        _check_weights(found, where, head, head['num_classes'])


def _check_weights(found: Findings, where: str, head: Mapping[str, Any], number: int) -> None:
    for key, loss in head.items():
        for one in loss if isinstance(loss, list | tuple) else [loss]:
            weights = one.get('class_weight') if isinstance(one, Mapping) and str(key).startswith('loss_') else None
            if isinstance(weights, list | tuple) and len(weights) not in (number, number + 1):
                found.error(
                    f'{where}.{key}.class_weight',
                    f'Expected {number} weights, one for each class, but got {len(weights)}. Correct the list.',
                )


def check_teacher_names(found: Findings, config: Config, teacher: Mapping[str, Any] | None, path: str) -> None:
    """A teacher that was trained on as many classes means the same by them.

    Args:
        teacher: the whole config that the teacher was trained with, None where it is not known.
    """
    if teacher is None:
        return
    ours = classes_of(config, 'train_dataloader')
    theirs = classes_of(teacher, 'train_dataloader')
    if ours is None or theirs is None or len(ours) != len(theirs) or ours == theirs:
        return
    pairs = [
        f'{one!r} where the student has {other!r}' for one, other in zip(theirs, ours, strict=True) if one != other
    ]
    found.warning(
        path,
        f'Expected a teacher of the same classes in the same order but its config has {", ".join(pairs[:3])}. Distil '
        'features only, or give both the same order.',
    )
