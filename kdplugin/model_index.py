"""The list of recipes that OpenMMLab's mim reads: ``model-index.yml`` and a ``metafile.yml`` in each folder of configs.

They are written from the config files and from docs/results, never by hand; tools/write_docs.py does it. Format:
``Collections`` and ``Models`` as in mmdet's configs/gfl/metafile.yml.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine.fileio import dump

HEADER = '# Written by tools/write_docs.py from the config files and docs/results.\n'

COLLECTIONS = {
    'detection': 'Published detection pairs',
    'orion': 'ORION student',
    'projection': 'Projected start',
    'quickstart': 'Quickstart',
    'real_data': 'Small real data',
    'segmentation': 'Segmentation pairs',
    'wan': 'Wan-lite student',
}
"""Folder of configs -> name of its collection."""

SHARED = {'b2d', 'bccd', 'digits', 'dubai', 'eva-tiny_digits', 'mit_digits'}
"""Configs that others inherit and that are no recipes themselves."""

DATA = {
    'b2d': 'Bench2Drive',
    'bccd': 'BCCD',
    'cityscapes': 'Cityscapes',
    'coco': 'COCO',
    'digits': 'Digit scenes',
    'dubai': 'Dubai aerial imagery',
    'voc12': 'PASCAL VOC 2012',
    'wan-lite': 'Prompts',
}
"""Part of a config's name -> the data it trains on."""


@dataclass(frozen=True)
class Measured:
    """Results of one recipe.

    Args:
        task: as OpenMMLab names it.
        metric: likewise; the values are in percent.
        values: one for each seed.
    """

    task: str
    metric: str
    values: list[float]


def _segmentation(values: list[float]) -> Measured:
    return Measured('Semantic Segmentation', 'mIoU', values)


def _detection(values: list[float]) -> Measured:
    return Measured('Object Detection', 'box AP', values)


def _quickstart(results: Mapping[str, Any]) -> dict[str, Measured]:
    of_seeds = {role: [seed[role] for seed in results['seeds']] for role in ('baseline', 'kd')}
    runs = {'teacher': [results['teacher']], **of_seeds}
    return {f'{role}_digits': _segmentation(values) for role, values in runs.items()}


def _orion(results: Mapping[str, Any]) -> dict[str, Measured]:
    names = {'teacher': 'teacher', 'student_nokd': 'no_kd', 'student_kd': 'kd'}
    return {f'{name}_eva-tiny_digits': _detection(results[run]) for name, run in names.items()}


def _projection(results: Mapping[str, Any]) -> dict[str, Measured]:
    starts = {'random': ('random', 'uniform'), 'projected': ('svd', 'uniform')}
    return {
        f'{name}_mit_digits': _segmentation(
            [run['miou'] for run in results['runs'] if (run['method'], run['layers']) == start]
        )
        for name, start in starts.items()
    }


def _real_data(results: Mapping[str, Any]) -> dict[str, Measured]:
    found = {}
    for run in results['runs']:
        make = _detection if run['metric'] == 'coco/bbox_mAP' else _segmentation
        for role in ('teacher', 'baseline', 'kd', 'kd_bf16'):
            if run.get(role) is not None:
                values = run[role] if isinstance(run[role], list) else [run[role]]
                found[f'{role}_{run["data"]}'] = make(values)
    return found


RESULTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Measured]]] = {
    'quickstart': _quickstart,
    'orion_digits': _orion,
    'projection_start': _projection,
    'real_data': _real_data,
}
"""File in docs/results -> what it says of recipes, by their names."""


def measured(root: Path) -> dict[str, Measured]:
    """Return the results of recipes that docs/results holds."""
    found: dict[str, Measured] = {}
    for name, read in RESULTS.items():
        path = root / 'docs' / 'results' / f'{name}.json'
        found |= read(json.loads(path.read_text())) if path.is_file() else {}
    return found


def recipes(root: Path, folder: str) -> list[Path]:
    """Return the configs of a folder that can be trained or tested."""
    return sorted(path for path in (root / 'configs' / folder).glob('*.py') if path.stem not in SHARED)


def written(root: Path) -> dict[Path, str]:
    """Return the files of the list, and their texts as they should be by the configs and results that are there."""
    results = measured(root)
    files = {f'configs/{folder}/metafile.yml': _metafile(root, folder, results) for folder in COLLECTIONS}
    index = {'model-index.yml': {'Import': list(files)}, **files}
    return {
        root / name: HEADER + dump(content, file_format='yml', sort_keys=False, allow_unicode=True)
        for name, content in index.items()
    }


def _metafile(root: Path, folder: str, results: Mapping[str, Measured]) -> dict[str, Any]:
    collection = COLLECTIONS[folder]
    models = [_model(path.relative_to(root), collection, results.get(path.stem)) for path in recipes(root, folder)]
    data = sorted({model['Metadata']['Training Data'] for model in models})
    return {'Collections': [{'Name': collection, 'Metadata': {'Training Data': data}}], 'Models': models}


def _model(path: Path, collection: str, result: Measured | None) -> dict[str, Any]:
    data = next(title for part, title in DATA.items() if part in path.stem)
    model = {
        'Name': path.stem,
        'In Collection': collection,
        'Config': path.as_posix(),
        'Metadata': {'Training Data': data},
    }
    if result is None:
        return model
    metrics = {result.metric: round(fmean(result.values), 2)}
    metadata = {'Training Data': data, 'Seeds': len(result.values)}
    return {**model, 'Metadata': metadata, 'Results': [{'Task': result.task, 'Dataset': data, 'Metrics': metrics}]}
