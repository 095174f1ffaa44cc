"""Do the numbers in label images mean what the config says: is one taken off, or set aside, by mistake?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.class_names import classes_of, configured_heads
from kdplugin.preflight.data import datasets_of
from kdplugin.preflight.findings import Findings

NOTHING = ('background', 'bg', '_background_', 'unlabeled', 'unlabelled')


def check_zero_label(found: Findings, config: Config) -> None:
    """Training and validation take the same labels off, and none that has a name."""
    taken = {
        loader: {
            bool(one.get('reduce_zero_label')) for one in datasets_of(config, loader) if 'reduce_zero_label' in one
        }
        for loader in ('train_dataloader', 'val_dataloader')
    }
    train, val = taken.values()
    if train and val and train != val:
        found.error(
            'val_dataloader.dataset.reduce_zero_label',
            f'Expected reduce_zero_label alike in training and validation but got {_said(train)} and {_said(val)}. '
            'Every class would be measured by the labels of its neighbour: write the same in both.',
        )
    names = classes_of(config, 'train_dataloader') or ()
    if train == {True} and names and names[0].lower() in NOTHING:
        found.error(
            'train_dataloader.dataset.reduce_zero_label',
            f'Expected {names[0]!r} to keep its label 0 but reduce_zero_label=True ignores it and gives every other '
            'class the name before it. Write reduce_zero_label=False, or take that class out of metainfo.',
        )


def _said(values: set[bool]) -> str:
    return ' and '.join(str(value) for value in sorted(values))


def check_ignored_class(found: Findings, model: Any, path: str) -> None:
    """No head ignores a class that it predicts."""
    for where, head in configured_heads(model, path):
        ignored = head.get('ignore_index')
        if isinstance(head, Mapping) and isinstance(ignored, int) and 0 <= ignored < head['num_classes']:
            found.warning(
                f'{where}.ignore_index',
                f'Expected an ignore_index outside the {head["num_classes"]} classes but got {ignored}, which would '
                'never be learnt. Write 255, unless that is meant.',
            )
