"""Have the parts that a Runner builds the form of parts: dicts with a type, pipelines that are lists of them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.data import LOADERS, located_datasets
from kdplugin.preflight.evaluation import metrics_of
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.pipelines import pipelines_of


def check_forms(found: Findings, config: Config) -> None:
    """Schedulers, metrics, the optimizer, data sets and transforms are dicts with a type."""
    for path, part, example in _parts(config):
        if isinstance(part, Mapping) and 'type' not in part:
            found.error(
                path,
                f'Expected a type beside {sorted(map(str, part))} but got none. Write dict(type={example!r}, ...).',
            )
    for loader in LOADERS:
        for path, dataset in located_datasets(config, loader):
            _check_dataset(found, path, dataset)
        settings = config.get(loader)
        if (
            isinstance(settings, Mapping)
            and _is_coco(settings.get('dataset'))
            and not any(pipelines_of(config, loader))
        ):
            _check_pipeline(found, f'{loader}.dataset', settings['dataset'].get('pipeline'))


def _parts(config: Config) -> Iterator[tuple[str, Any, str]]:
    schedulers = config.get('param_scheduler')
    for number, one in enumerate(schedulers if isinstance(schedulers, list | tuple) else ()):
        yield f'param_scheduler.{number}', one, 'MultiStepLR'
    for key in ('val_evaluator', 'test_evaluator'):
        yield from ((path, metric, 'CocoMetric') for path, metric in metrics_of(config, key))
    wrapper = config.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, Mapping) else None
    if isinstance(optimizer, Mapping) and not any(
        isinstance(one, Mapping) and 'type' in one for one in optimizer.values()
    ):
        yield 'optim_wrapper.optimizer', optimizer, 'SGD'
    for loader in LOADERS:
        yield from ((path, dataset, 'CocoDataset') for path, dataset in located_datasets(config, loader) if dataset)


def _is_coco(dataset: Any) -> bool:
    return isinstance(dataset, Mapping) and ('Coco' in kind_of(dataset) or 'data_prefix' in dataset)


def _check_dataset(found: Findings, path: str, dataset: Mapping[str, Any]) -> None:
    if kind_of(dataset) == 'CocoDataset' and not dataset.get('ann_file'):
        found.error(
            f'{path}.ann_file', "Expected an annotation file but got none. Write ann_file='annotations/...json'."
        )
    metainfo = dataset.get('metainfo')
    if metainfo is not None and not isinstance(metainfo, Mapping):
        found.error(
            f'{path}.metainfo', f'Expected a dict but got {metainfo!r:.80}. Write metainfo=dict(classes=(...)).'
        )
    pipeline = dataset.get('pipeline')
    if pipeline is not None:
        _check_pipeline(found, path, pipeline)


def _check_pipeline(found: Findings, path: str, pipeline: Any) -> None:
    if not isinstance(pipeline, list | tuple) or not pipeline:
        text = 'none' if pipeline is None else f'{pipeline!r:.80}'
        found.error(
            f'{path}.pipeline',
            f'Expected a list of transforms but got {text}. No image would be loaded: write pipeline=train_pipeline.',
        )
        return
    for number, step in enumerate(pipeline):
        if not callable(step) and not (isinstance(step, Mapping) and 'type' in step):
            kind = step if isinstance(step, str) else 'Resize'
            found.error(
                f'{path}.pipeline.{number}',
                f'Expected a dict with a type but got {step!r:.80}. Write dict(type={kind!r}).',
            )
