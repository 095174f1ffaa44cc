"""Do the files of the datasets exist, and do the classes of data and models agree?"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import join_path
from mmengine.registry import DATASETS
from mmengine.utils import is_abs
from torch import nn

from kdplugin.preflight.findings import Findings

LOADERS = ('train_dataloader', 'val_dataloader')
OTHER_CLASSES = ('rpn_head', 'semantic_head')
"""Heads whose ``num_classes`` is not the dataset's: proposals are objects or not, HTC's semantic head sees stuff."""


def plain_datasets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the datasets inside wrappers such as ConcatDataset(datasets=) and RepeatDataset(dataset=)."""
    if not isinstance(dataset, Mapping):
        return
    inner = [*(dataset.get('datasets') or ()), *([dataset['dataset']] if 'dataset' in dataset else ())]
    if not inner:
        yield dataset
    for item in inner:
        yield from plain_datasets(item)


def check_dataset_files(found: Findings, config: Config) -> bool:
    """Every folder and annotation file that the train and val datasets name exists; True if all do."""
    before = len(found.errors)
    for loader in LOADERS:
        if not config.get(loader):
            found.note(loader, 'not checked: the config has none.')
            continue
        for dataset in plain_datasets(config[loader].get('dataset')):
            _check_files(found, loader, dataset)
    return len(found.errors) == before


def _check_files(found: Findings, where: str, dataset: Mapping[str, Any]) -> None:
    root = dataset.get('data_root') or ''
    named = {'ann_file': dataset.get('ann_file'), **(dataset.get('data_prefix') or {})}
    paths = {
        key: value if is_abs(value) or not root else join_path(root, value) for key, value in named.items() if value
    }
    if dataset.get('backend_args') or any('://' in path for path in (root, *paths.values())):
        found.note(where, f'not checked: the files of {dataset.get("type")}, which are not on a local disk.')
        return
    if root and not Path(root).is_dir():
        found.error(
            where,
            f'Expected data_root {root} to be a folder but it does not exist. Put the data there or correct data_root.',
        )
        return
    for key, path in paths.items():
        if not Path(path).exists():
            found.error(where, f'Expected {key} {path} but it does not exist. Put the data there or correct {key}.')


def dataset_classes(dataset: Mapping[str, Any]) -> Any:
    """Return the ``classes`` that a dataset's config and type stand for, or None; nothing is read but a class list."""
    kind = dataset.get('type')
    dataset_class = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not hasattr(dataset_class, '_load_metainfo'):
        return None
    return dataset_class._load_metainfo(copy.deepcopy(dataset.get('metainfo'))).get('classes')  # type: ignore[union-attr]


def head_classes(model: nn.Module) -> dict[str, int]:
    """Return ``num_classes`` of a model's heads by module name."""
    return {
        name: module.num_classes
        for name, module in model.named_modules()
        if _owner(name).endswith('_head')
        and _owner(name) not in OTHER_CLASSES
        and isinstance(getattr(module, 'num_classes', None), int)
    }


def _owner(name: str) -> str:
    """Return the last part of a module name, that of the list for an item of a list."""
    parts = [part for part in name.split('.') if not part.isdigit()]
    return parts[-1] if parts else ''


def check_classes(found: Findings, config: Config, models: Mapping[str, nn.Module | None]) -> None:
    """The heads predict as many classes as the datasets hold.

    Args:
        found: collects the findings.
        config: of the training.
        models: by owner. Another number is an error for 'student', whose labels come from the data, a warning for
            a teacher, of which features alone may be of use.
    """
    for loader in LOADERS:
        for dataset in plain_datasets((config.get(loader) or {}).get('dataset')):
            classes = found.attempt(loader, 'a known dataset', dataset_classes, dataset)
            if isinstance(classes, str):
                found.error(
                    loader, f'Expected a tuple of class names but got the text {classes!r}. Write ({classes!r},).'
                )
            elif classes is not None:
                for owner, model in models.items():
                    _compare_classes(found, owner, model, len(classes), f'{dataset.get("type")} in {loader}')


def _compare_classes(found: Findings, owner: str, model: nn.Module | None, classes: int, data: str) -> None:
    for name, number in head_classes(model).items() if model is not None else ():
        if number != classes:
            say = found.error if owner == 'student' else found.warning
            cure = (
                'Set num_classes, or metainfo'
                if owner == 'student'
                else 'Use a teacher of the same classes, or features'
            )
            say(
                owner,
                f'Expected {name} to predict the {classes} classes of {data} but got num_classes={number}. {cure}.',
            )
