"""A look into the data on disk: is there an image, and do annotations speak of these images and classes?"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import join_path
from mmengine.utils import is_abs

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.data import LOADERS, dataset_classes, located_datasets
from kdplugin.preflight.findings import Findings

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LARGEST = 64_000_000
"""Bytes of an annotation file that is read for a look; larger ones take longer than seconds."""
LOOKED_AT = 5000
"""Files of a folder that are looked at."""


def check_samples(found: Findings, config: Config) -> None:
    """Folders of images hold images, and COCO files have the images and the classes that are asked for."""
    for loader in LOADERS:
        for path, dataset in located_datasets(config, loader):
            root = dataset.get('data_root') or ''
            if not isinstance(root, str) or '://' in root or dataset.get('backend_args'):
                continue
            folder = _image_folder(dataset, root)
            if folder is not None and folder.is_dir():
                _check_images(found, path, dataset, folder)
            file = _join(root, dataset.get('ann_file'))
            if file is not None and file.suffix == '.json' and file.is_file():
                _check_coco(found, f'{path}.ann_file', dataset, file, folder)
            _check_split(found, path, dataset)
            _check_label_suffix(found, path, dataset, root)


def _check_label_suffix(found: Findings, path: str, dataset: Mapping[str, Any], root: str) -> None:
    """Label images end as the dataset says."""
    prefixes, suffix = dataset.get('data_prefix'), dataset.get('seg_map_suffix')
    folder = _join(root, prefixes.get('seg_map_path')) if isinstance(prefixes, Mapping) else None
    if folder is None or not folder.is_dir() or not isinstance(suffix, str) or not suffix:
        return
    files = itertools.islice((name for _, _, names in os.walk(folder) for name in names), LOOKED_AT)
    names = [name for name in files if name.lower().endswith(IMAGES)]
    if names and not any(name.endswith(suffix) for name in names):
        found.error(
            f'{path}.seg_map_suffix',
            f'Expected label images that end in {suffix!r} in {folder} but got {names[0]!r}. Correct seg_map_suffix.',
        )


def _check_split(found: Findings, path: str, dataset: Mapping[str, Any]) -> None:
    """Say so where annotations are called by one split and images by another: their files may have the same names."""
    prefixes = dataset.get('data_prefix')
    images = prefixes.get('img') or prefixes.get('img_path') if isinstance(prefixes, Mapping) else None
    one, other = split_of(dataset.get('ann_file')), split_of(images)
    if one and other and one != other:
        found.warning(
            f'{path}.data_prefix',
            f'Expected images and annotations of one split but got {images} and {dataset["ann_file"]}. Correct one of '
            'them.',
        )


def split_of(path: Any) -> str:
    """Return the split that a path names, '' where it names none or several."""
    named = set(re.findall(r'(?<![a-z])(train|val|test)(?![a-z])', str(path or '').lower()))
    return named.pop() if len(named) == 1 else ''


def _join(root: str, value: Any) -> Path | None:
    if not isinstance(value, str) or not value:
        return None
    return Path(value if is_abs(value) or not root else join_path(root, value))


def _image_folder(dataset: Mapping[str, Any], root: str) -> Path | None:
    prefixes = dataset.get('data_prefix')
    if not isinstance(prefixes, Mapping):
        return None
    value = prefixes.get('img') or prefixes.get('img_path')
    return _join(root, value)


def _check_images(found: Findings, path: str, dataset: Mapping[str, Any], folder: Path) -> None:
    suffix = dataset.get('img_suffix')
    files = itertools.islice((name for _, _, names in os.walk(folder) for name in names), LOOKED_AT)
    names = [name for name in files if name.lower().endswith(IMAGES)]
    if not names:
        found.error(
            f'{path}.data_prefix',
            f'Expected images in {folder} but it has none. Put the data there or correct data_prefix.',
        )
    elif isinstance(suffix, str) and suffix and not any(name.endswith(suffix) for name in names):
        found.error(
            f'{path}.img_suffix',
            f'Expected images that end in {suffix!r} in {folder} but got {names[0]!r}. Correct img_suffix.',
        )


def _check_coco(found: Findings, path: str, dataset: Mapping[str, Any], file: Path, folder: Path | None) -> None:
    if file.stat().st_size > LARGEST:
        found.note(path, f'not checked: what is in {file}, which is large.')
        return
    try:
        content = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        found.error(path, f'Expected JSON in {file} but got {error}. Put a whole file there.')
        return
    lacking = [
        key for key in ('images', 'annotations', 'categories') if not isinstance(content, dict) or key not in content
    ]
    if 'Coco' not in str(dataset.get('type')):
        return
    if lacking:
        found.error(path, f'Expected COCO annotations in {file} but it has no {", ".join(lacking)}. Give another file.')
        return
    images = [one.get('file_name') for one in content['images'] if isinstance(one, dict)]
    if not images:
        found.error(path, f'Expected images in {file} but it lists none. Give another file.')
    elif folder is not None and not any((folder / str(name)).is_file() for name in images[:20]):
        found.error(
            path,
            f'Expected the images of {file} in {folder} but {images[0]} is not there. Correct data_prefix.img.',
        )
    _check_names(found, path, dataset, [str(one.get('name')) for one in content['categories'] if isinstance(one, dict)])


def _check_names(found: Findings, path: str, dataset: Mapping[str, Any], names: list[str]) -> None:
    try:
        classes = dataset_classes(dataset)
    except Exception:  # said where classes are counted
        return
    if not isinstance(classes, list | tuple):
        return
    absent = [str(name) for name in classes if name not in names]
    if absent:
        found.error(
            path.replace('ann_file', 'metainfo.classes'),
            f'Expected the classes of the annotations, {names[:8]}, but got {absent[:8]}, which have none.'
            f'{did_you_mean(absent[0], names)} Correct metainfo: labels of unknown classes are left out '
            'without a word.',
        )
