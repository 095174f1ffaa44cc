"""Does the validation run: its first image, the student's prediction on it, and what measures that?"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, EVALUATOR
from torch import nn

from kdplugin.distill.probe import few_proposals, synthetic_batch
from kdplugin.preflight.evaluation import metrics_of
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.shrinking import shrunk

LOADER, MEASURE = 'val_dataloader', 'val_evaluator'
WRITES = ('format_only', 'outfile_prefix', 'output_dir')
"""Settings of metrics that write files while they look at predictions."""
THRESHOLD = 'score_thr'


def check_validation(found: Findings, config: Config, student: nn.Module, files_exist: bool) -> None:
    """The first image of the validation comes through its pipeline, the student predicts, and the metrics take that."""
    loader = config.get(LOADER)
    if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
        return
    if not files_exist:
        found.attempt(LOADER, 'the student to predict', _predict_anything, student)
        return
    first = found.attempt(LOADER, 'an image of the validation', _first, loader['dataset'])
    if first is None:
        return
    data, metainfo = first
    with low_thresholds(student), few_proposals(student, []):
        predictions = found.attempt(LOADER, 'the student to predict', _predict, student, data)
    if predictions is not None and config.get(MEASURE) is not None:
        found.attempt(
            MEASURE, 'metrics that take what the student predicts', _measure, config, data, predictions, metainfo
        )


def _first(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    dataset = DATASETS.build(copy.deepcopy(settings))
    return pseudo_collate([dataset[0]]), dataset.metainfo


@torch.no_grad()
def _predict_anything(student: Any) -> None:
    student.eval()
    inputs, samples = synthetic_batch(student, (256, 256))
    student(inputs, samples, mode='predict')


@torch.no_grad()
def _predict(student: Any, data: Any) -> Any:
    """Return what the student predicts, on a small image if it can: where it fails, its own size has the word."""
    student.eval()
    ready = student.data_preprocessor(copy.deepcopy(data), False)
    small = shrunk(ready, truth=False)
    if small is not ready:
        with contextlib.suppress(Exception):
            return student(**small, mode='predict')
    return student.val_step(data)


@contextlib.contextmanager
def low_thresholds(student: nn.Module) -> Iterator[None]:
    """Let a detector that has learnt nothing yet find something in the block, so that all of its prediction runs."""
    changed: list[tuple[Any, Any]] = []
    modules: Iterator[Any] = student.modules()
    for module in modules:
        settings = getattr(module, 'test_cfg', None)
        if isinstance(settings, Mapping) and settings.get(THRESHOLD):
            changed.append((module, settings))
            module.test_cfg = copy.deepcopy(settings)
            module.test_cfg[THRESHOLD] = 0.0
    try:
        yield
    finally:
        for module, settings in changed:
            module.test_cfg = settings


def _measure(config: Config, data: Any, predictions: Any, metainfo: Any) -> None:
    """Build every metric, and show it the predictions unless it would write them."""
    writing = [metric for _, metric in metrics_of(config, MEASURE) if any(metric.get(key) for key in WRITES)]
    settings = copy.deepcopy(config[MEASURE])
    whole = isinstance(settings, Mapping) and 'metrics' in settings
    evaluator = EVALUATOR.build({'type': 'Evaluator', **settings}) if whole else Evaluator(settings)
    evaluator.dataset_meta = metainfo
    if not writing:
        evaluator.process(data_samples=predictions, data_batch=data)
