"""Are the labels of a batch such as the student's heads can learn, and does validation run?"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import nn

from kdplugin.distill.ground_truth import segmentation_labels
from kdplugin.distill.probe import synthetic_batch
from kdplugin.preflight.data import head_classes
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.shrinking import shrunk

IGNORED = 255


def check_labels(found: Findings, student: nn.Module, data: Any) -> None:
    """Every label is of a class that the heads predict, or is ignored."""
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    heads = head_classes(student)
    if not samples or not heads or not isinstance(samples, list):
        return
    most = max(heads.values())
    labels = (
        segmentation_labels(samples) if 'decode_head' in heads or any('decode_head' in name for name in heads) else None
    )
    if labels is not None:
        wrong = sorted(
            {int(one) for one in labels.unique() if one != _ignored(student) and not 0 <= one < max(most, 2)}
        )
        if wrong:
            found.error(
                'train_dataloader.dataset',
                f'Expected labels from 0 to {most - 1}, or {_ignored(student)}, but got {wrong[:8]}. Correct '
                'num_classes, reduce_zero_label, or the label images.',
            )
        if bool((labels == _ignored(student)).all()):
            found.warning(
                'train_dataloader.dataset',
                'Expected labelled pixels but every one of this batch is ignored. Look at the label images.',
            )
        return
    instances = [
        sample.gt_instances for sample in samples if 'gt_instances' in sample and 'labels' in sample.gt_instances
    ]
    given = torch.cat([one.labels for one in instances]) if instances else torch.zeros(0, dtype=torch.long)
    if len(given) and int(given.max()) >= most:
        found.error(
            'train_dataloader.dataset',
            f'Expected labels from 0 to {most - 1} but got {int(given.max())}. Correct num_classes or metainfo.',
        )


def _ignored(student: nn.Module) -> int:
    head = getattr(student, 'decode_head', None)
    value = getattr(head, 'ignore_index', IGNORED)
    return value if isinstance(value, int) else IGNORED


def check_validation(found: Findings, config: Config, student: nn.Module, files_exist: bool) -> None:
    """The first image of the validation comes through its pipeline, and the student predicts on it."""
    loader = config.get('val_dataloader')
    if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
        return
    data: Any = None
    if files_exist:
        data = found.attempt('val_dataloader', 'an image of the validation', _first, loader['dataset'])
        if data is None:
            return
    found.attempt('val_dataloader', 'the student to predict', _predict, student, data)


def _first(settings: Mapping[str, Any]) -> Any:
    return pseudo_collate([DATASETS.build(copy.deepcopy(settings))[0]])


@torch.no_grad()
def _predict(student: Any, data: Any) -> None:
    """Let the student predict, on a small image if it can: one that fails is told at its own size."""
    student.eval()
    if data is None:
        inputs, samples = synthetic_batch(student, (256, 256))
        student(inputs, samples, mode='predict')
        return
    ready = student.data_preprocessor(copy.deepcopy(data), False)
    small = shrunk(ready)
    if small is not ready:
        with contextlib.suppress(Exception):
            student(**small, mode='predict')
            return
    student.val_step(data)
