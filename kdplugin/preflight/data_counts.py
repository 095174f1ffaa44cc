"""How many images a dataset has, as far as its files tell without building it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.findings import Findings

LARGEST = 64_000_000
"""Bytes of an annotation file above which it is not read: it has images enough."""


def most_images(dataset: Mapping[str, Any]) -> int | None:
    """Return a number of images that a plain dataset has at most, None where nothing tells."""
    indices = dataset.get('indices')
    if isinstance(indices, int) and not isinstance(indices, bool) and indices > 0:
        return indices
    root, file = dataset.get('data_root') or '', dataset.get('ann_file')
    if not isinstance(root, str) or not isinstance(file, str) or not file:
        return None
    path = Path(root) / file
    if path.suffix != '.json' or not path.is_file() or path.stat().st_size > LARGEST:
        return None
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError):  # said by check_samples
        return None
    images = content.get('images') if isinstance(content, dict) else None
    return len(images) if isinstance(images, list) else None


def check_whole_batches(found: Findings, config: Config) -> None:
    """With ``drop_last`` there are images for one batch: without, a training ends well after no step."""
    loader = config.get('train_dataloader')
    if not isinstance(loader, Mapping) or not loader.get('drop_last'):
        return
    batch, dataset = loader.get('batch_size'), loader.get('dataset')
    if not isinstance(batch, int) or not isinstance(dataset, Mapping) or {'dataset', 'datasets'} & set(dataset):
        return
    number = most_images(dataset)
    if number is not None and number < batch:
        found.error(
            'train_dataloader.drop_last',
            f'Expected images for a batch of {batch} but got {number}. With drop_last=True no step is taken: write '
            'drop_last=False, or a smaller batch_size.',
        )
