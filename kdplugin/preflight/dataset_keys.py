"""Keys of datasets that nobody complains of: names of classes, folders, and where files are kept."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.fileio.backends.registry_utils import backends
from mmengine.registry import DATASETS

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.data import located_datasets
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.registries import find_type
from kdplugin.preflight.signatures import keys_read

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
METAINFO = ('classes', 'palette')
OTHER_NAMES = {'class_names': 'classes', 'names': 'classes', 'categories': 'classes', 'colors': 'palette'}
PACKAGES = {'petrel': 'petrel_client', 'memcached': 'mc', 'lmdb': 'lmdb'}
"""What a storage needs besides mmengine."""
LEFT_OVER = ('sub_data_root',)
"""Keys of ``data_prefix`` that a recipe of mmdet inherits from VOC and leaves unread."""


def check_dataset_keys(found: Findings, config: Config) -> None:
    """``metainfo``, ``data_prefix`` and ``backend_args`` of every dataset hold what is read from them."""
    for loader in LOADERS:
        for path, dataset in located_datasets(config, loader):
            _check_metainfo(found, path, dataset.get('metainfo'))
            _check_prefixes(found, path, dataset)
            _check_backend(found, path, dataset.get('backend_args'))


def _check_metainfo(found: Findings, path: str, metainfo: Any) -> None:
    """Other keys are free, so a misspelt one leaves the classes of the dataset's type."""
    for key in metainfo if isinstance(metainfo, Mapping) else ():
        near = difflib.get_close_matches(str(key), METAINFO, n=1, cutoff=0.8)
        meant = OTHER_NAMES.get(str(key)) or (near[0] if near else None)
        if meant is not None and str(key).lower() not in METAINFO and meant not in metainfo:
            found.error(
                f'{path}.metainfo.{key}',
                f'Expected {meant!r} in metainfo but got {key!r}, which is not read. Did you mean {meant!r}?',
            )


def _check_prefixes(found: Findings, path: str, dataset: Mapping[str, Any]) -> None:
    """A folder under another key than the dataset's type asks for is not read."""
    prefixes = dataset.get('data_prefix')
    if not isinstance(prefixes, Mapping):
        return
    kind = find_type(dataset.get('type'), (DATASETS,), dataset.get('_scope_'))
    known = sorted(keys_read(kind, 'data_prefix')) if isinstance(kind, type) else []
    if not known or not {'img', 'img_path'} & set(known):
        return
    for key in (one for one in prefixes if one not in (*known, *LEFT_OVER)):
        label = 'seg' in str(key) or 'ann' in str(key) or 'mask' in str(key)
        meant = next((one for one in known if ('seg' in one) == label), known[0])
        found.error(
            f'{path}.data_prefix.{key}',
            f'Expected keys {known} in data_prefix of {kind.__name__} but got {key!r}, which is not read. Write '
            f'{meant}={prefixes[key]!r}.',
        )


def _check_backend(found: Findings, path: str, settings: Any) -> None:
    """Files are kept in a storage that mmengine knows, and that its package can read."""
    name = settings.get('backend') if isinstance(settings, Mapping) else None
    if not isinstance(name, str):
        return
    if name not in backends:
        found.error(
            f'{path}.backend_args.backend',
            f'Expected a storage of {list(backends)} but got {name!r}.{did_you_mean(name, list(backends))} Correct it: '
            'files on a disk need no backend_args.',
        )
    elif name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        found.error(
            f'{path}.backend_args.backend',
            f'Expected the package {PACKAGES[name]} for the storage {name} but it is not installed. Install it; files '
            'on a disk need backend_args=None.',
        )
