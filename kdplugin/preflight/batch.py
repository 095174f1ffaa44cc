"""The batch that preflight trains on: two images of the training data, or random ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn

from kdplugin.distill.probe import probe_sizes, synthetic_batch
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import DataError
from kdplugin.preflight.data_size import check_data_size
from kdplugin.preflight.findings import EMPTY_DATASET, Findings
from kdplugin.preflight.least_images import least_images

RANDOM = 'a batch of random images'
IMAGES = 2
"""Batch normalisation over a 1x1 map needs more than one image."""


def first_batch(config: Config) -> tuple[Any, int]:
    """Load the first images as training would, in this process: ``IMAGES``, or what a loss needs, or a smaller batch.

    Returns:
        The batch, and how many images there are in all.

    Raises:
        DataError: the training dataset is empty.
    """
    loader = copy.deepcopy(config.train_dataloader)
    dataset = DATASETS.build(loader.dataset)
    if len(dataset) == 0:  # an infinite sampler would look for an image forever
        raise DataError(EMPTY_DATASET)
    loader.dataset = dataset
    if loader.get('batch_size'):
        loader.batch_size = min(loader.batch_size, max(IMAGES, least_images(config)))
    loader.update(num_workers=0, persistent_workers=False, drop_last=False)
    for key in ('prefetch_factor', 'pin_memory'):
        loader.pop(key, None)
    return next(iter(Runner.build_dataloader(loader, seed=0))), len(dataset)


def check_batch(
    found: Findings, config: Config, student: nn.Module, files_exist: bool, of_images: bool = True
) -> tuple[Any, str]:
    """Training data comes out of its pipeline and the student's preprocessor; returns it and a name for it.

    Where the data is missing the student's inputs are random images, which says nothing about the data; None where it
    learns from no images.
    """
    if files_exist and config.get('train_dataloader'):
        first = found.attempt('train_dataloader', 'a training batch', first_batch, config)
        if first is not None:
            batch, images = first
            found.run('data size', check_data_size, config, images)
            preprocess: Any = student.data_preprocessor
            data = found.attempt('data_preprocessor', 'it to take the batch', preprocess, batch, True)
            if data is not None:
                return data, 'a training batch'
    if not of_images:
        return None, ''
    found.note('training step', 'not checked: real training images. The step below sees random ones.')
    inputs, samples = synthetic_batch(student, probe_sizes(student)[-1], max(IMAGES, least_images(config)))
    return dict(inputs=inputs, data_samples=samples), RANDOM


def check_caches(found: Findings, config: Config, teachers: Mapping[str, Teacher], files_exist: bool) -> None:
    """Teachers with a ``cache`` see the same image each time; ``teachers`` go by how findings call them."""
    keeping = {where: teacher for where, teacher in teachers.items() if teacher.config.get('cache') is not None}
    if not keeping:
        return
    dataset = None
    if files_exist and config.get('train_dataloader'):
        settings = copy.deepcopy(config.train_dataloader.dataset)
        dataset = found.attempt('train_dataloader', 'a dataset', DATASETS.build, settings)
    for where, teacher in keeping.items():
        if dataset is None:
            found.note(where, 'not checked: whether its outputs can be kept in a cache, because there is no data.')
        else:
            found.attempt(where, 'outputs that can be kept', teacher.check_cache, dataset)
