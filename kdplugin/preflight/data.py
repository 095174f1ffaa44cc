"""Do the files of the datasets exist, and do the classes of data and models agree?"""

from __future__ import annotations

import copy
import difflib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import join_path
from mmengine.registry import DATASETS
from mmengine.utils import is_abs
from torch import nn

from kdplugin.errors import ConfigError
from kdplugin.preflight.findings import Findings, explain
from kdplugin.preflight.registries import find_type

LOADERS = ('train_dataloader', 'val_dataloader')
FILES = ('ann_file', 'proposal_file')
FILTERS = ('filter_empty_gt', 'min_size')
"""Keys of ``filter_cfg`` that mmdet's datasets read."""
OTHER_CLASSES = ('rpn_head', 'semantic_head')
"""Heads whose ``num_classes`` is not the dataset's: proposals are objects or not, HTC's semantic head sees stuff."""
EDGES = ('STDCHead',)
"""Types of heads that learn where things end, in two classes."""


def plain_datasets(dataset: Any, path: str = 'dataset') -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and settings of the datasets inside wrappers: ConcatDataset(datasets=), RepeatDataset(dataset=)."""
    if not isinstance(dataset, Mapping):
        return
    several, one = dataset.get('datasets'), dataset.get('dataset')
    if several is None and one is None:
        yield path, dataset
    for number, item in enumerate(several if isinstance(several, list | tuple) else ()):
        yield from plain_datasets(item, f'{path}.datasets.{number}')
    yield from plain_datasets(one, f'{path}.dataset')


def located_datasets(config: Mapping[str, Any], loader: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and settings of the plain datasets of a config's loader; none if the config does not have it."""
    settings = config.get(loader)
    yield from plain_datasets(settings.get('dataset') if isinstance(settings, Mapping) else None, f'{loader}.dataset')


def datasets_of(config: Mapping[str, Any], loader: str) -> Iterator[Mapping[str, Any]]:
    """Yield the plain datasets of a config's loader."""
    yield from (dataset for _, dataset in located_datasets(config, loader))


def check_dataset_files(found: Findings, config: Config) -> bool:
    """The types of the train and val datasets are known, the folders and files they name exist; True if all do."""
    before = len(found.errors)
    for loader in LOADERS:
        if not config.get(loader):
            found.note(loader, 'not checked: the config has none.')
            continue
        for path, dataset in located_datasets(config, loader):
            found.attempt(path, 'paths', _check_files, found, path, dataset)
    return len(found.errors) == before


def _check_files(found: Findings, where: str, dataset: Mapping[str, Any]) -> None:
    root = dataset.get('data_root') or ''
    prefixes = dataset.get('data_prefix')
    if isinstance(prefixes, str):
        found.error(
            f'{where}.data_prefix', f'Expected a dict but got {prefixes!r}. Write data_prefix=dict(img={prefixes!r}).'
        )
        return
    named = {key: dataset.get(key) for key in FILES} | dict(prefixes or {})
    if 'Panoptic' not in str(dataset.get('type')) and not _reads_maps(dataset.get('pipeline')):
        named.pop('seg', None)  # mmdet's recipes leave it over from panoptic ones
    paths = {
        key: value if is_abs(value) or not root else join_path(root, value) for key, value in named.items() if value
    }
    if dataset.get('backend_args') or any('://' in path for path in (root, *paths.values())):
        found.note(where, f'not checked: the files of {dataset.get("type")}, which are not on a local disk.')
        return
    if root and not Path(root).is_dir():
        found.error(
            f'{where}.data_root',
            f'Expected data_root {root} to be a folder but it does not exist.{near_files(root)} Put the data there or '
            'correct data_root.',
        )
        return
    for key, path in paths.items():
        if not Path(path).exists():
            inner = key if key in FILES else f'data_prefix.{key}'
            found.error(
                f'{where}.{inner}',
                f'Expected {key} {path} but it does not exist.{_doubled(root, str(named[key]))}{near_files(path)} Put '
                f'the data there or correct {key}.',
            )
        elif key == 'ann_file' and Path(path).is_dir() and 'Coco' in str(dataset.get('type')):
            found.error(f'{where}.ann_file', f'Expected a file but {path} is a folder. Name the JSON file in it.')
    _check_filter(found, where, dataset.get('filter_cfg'))


def _reads_maps(steps: Any) -> bool:
    """Tell whether a pipeline of mmdet opens label maps; one that is not a list of dicts is taken to."""
    if not isinstance(steps, list | tuple) or not all(isinstance(step, Mapping) for step in steps):
        return True
    return any(step.get('with_seg') or 'Panoptic' in str(step.get('type')) for step in steps)


def _check_filter(found: Findings, where: str, settings: Any) -> None:
    """Nobody complains of a misspelt key in ``filter_cfg``: it is asked for by name."""
    for key in settings if isinstance(settings, Mapping) else ():
        near = difflib.get_close_matches(str(key), FILTERS, n=1, cutoff=0.7)
        if key not in FILTERS and near:
            found.error(
                f'{where}.filter_cfg.{key}',
                f'Expected keys {list(FILTERS)} in filter_cfg but got {key!r}, which is not read. Did you mean '
                f'{near[0]!r}?',
            )


def _doubled(root: str, value: str) -> str:
    """Return a hint where a path names its root once more."""
    return ' It names data_root once more.' if root and str(value).startswith(str(root)) else ''


def near_files(path: str) -> str:
    """Return ' Did you mean ...?' for a path that does not exist: the nearest names in the last folder that does."""
    given = Path(path).expanduser()
    if given.is_dir():
        return ' It is a folder.'
    for folder, name in (
        (parent, child.name) for parent, child in zip(given.parents, (given, *given.parents), strict=False)
    ):
        if folder.is_dir():
            try:
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in itertools.islice(entries, 1000)]
            except OSError:
                return ''
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            return f' Did you mean {str(folder / near[0])!r}?' if near else ''
    return ''


def dataset_classes(dataset: Mapping[str, Any]) -> Any:
    """Return the ``classes`` that a dataset's config and type stand for, or None; nothing is read but a class list."""
    return _metainfo(dataset).get('classes')


def _metainfo(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a dataset's config and type say of the data; nothing of videos, of which models track a part."""
    kind = find_type(dataset.get('type'), (DATASETS,), dataset.get('_scope_'))
    videos = any(base.__name__ == 'BaseVideoDataset' for base in getattr(kind, '__mro__', ()))
    if videos or not hasattr(kind, '_load_metainfo'):
        return {}
    return kind._load_metainfo(copy.deepcopy(dataset.get('metainfo'))) or {}


def _shares(dataset: Mapping[str, Any]) -> set[int]:
    """Return what heads may predict instead of all classes: the things or the stuff of a panoptic dataset."""
    try:
        found = _metainfo(dataset)
    except Exception:  # told where classes are counted
        return set()
    return {len(found[key]) for key in ('thing_classes', 'stuff_classes') if found.get(key)}


def head_classes(model: nn.Module) -> dict[str, int]:
    """Return ``num_classes`` of a model's heads by module name; empty where text names the classes."""
    if hasattr(model, 'language_model'):
        return {}
    return {
        name: module.num_classes
        for name, module in model.named_modules()
        if _owner(name).endswith('_head')
        and _owner(name) not in OTHER_CLASSES
        and type(module).__name__ not in EDGES
        and isinstance(getattr(module, 'num_classes', None), int)
    }


def _owner(name: str) -> str:
    """Return the last part of a module name, that of the list for an item of a list."""
    parts = [part for part in name.split('.') if not part.isdigit()]
    return parts[-1] if parts else ''


def check_classes(found: Findings, config: Config, models: Mapping[str, Mapping[str, int]]) -> None:
    """The heads predict as many classes as the datasets hold.

    Args:
        found: collects the findings.
        config: of the training.
        models: by path in the config, the classes of each head. Another number is an error for the student, whose
            labels come from the data, a warning for a teacher, of which features alone may be of use.
    """
    shares = {one for loader in LOADERS for dataset in datasets_of(config, loader) for one in _shares(dataset)}
    for number, places in _class_counts(found, config).items():
        for path, heads in models.items():
            say, cure = found.error, 'Set num_classes of the head, or metainfo of the dataset'
            if 'teacher' in path:
                say, cure = found.warning, 'Use a teacher of the same classes, or distil features only'
            for name, own in heads.items():
                if own != number and own not in shares:
                    data = ' and '.join(places)
                    say(
                        f'{path}.{name}',
                        f'Expected {name} to predict the {number} classes of {data} but got {own}. {cure}.',
                    )


def _class_counts(found: Findings, config: Config) -> dict[int, list[str]]:
    """Return the loaders that hold each number of classes; a dataset of an unknown type is left out."""
    counts: dict[int, list[str]] = {}
    for loader in LOADERS:
        for dataset in datasets_of(config, loader):
            try:
                classes = dataset_classes(dataset)
            except Exception as error:  # a class of the user's own, with its own idea of metainfo
                found.note(loader, f'not checked: the number of classes, because of {explain(error)}.')
                continue
            if classes is None and find_type(dataset.get('type'), (DATASETS,), dataset.get('_scope_')) is None:
                continue  # an unknown type, which check_types reports
            if classes is None:
                found.note(loader, f'not checked: the number of classes, which {dataset.get("type")} does not name.')
            elif isinstance(classes, str):
                found.error(loader, f'Expected a tuple of classes but got the text {classes!r}. Write ({classes!r},).')
            elif loader not in counts.setdefault(len(classes), []):
                counts[len(classes)].append(loader)
    return counts


def require_matching_classes(config: Config, model: nn.Module) -> None:
    """Raise ConfigError if a head does not predict as many classes as the data of a training holds."""
    found = Findings()
    check_classes(found, config, {'model': head_classes(model)})
    if found.errors:
        raise ConfigError(found.errors[0].message)
