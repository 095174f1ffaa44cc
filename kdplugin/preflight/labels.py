"""Are the labels of a batch such as the student's heads can learn?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from kdplugin.distill.ground_truth import segmentation_labels
from kdplugin.preflight.data import head_classes
from kdplugin.preflight.findings import Findings

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
        elif most == 2 and {int(one) for one in labels.unique()} == {0, _ignored(student)}:
            found.warning(
                'train_dataloader.dataset',
                f'Expected labels 0 and 1 but this batch has 0 and {_ignored(student)}, which is ignored, so that '
                'class 1 is never learnt. If the label images are masks of 0 and 255, write them as 0 and 1.',
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
